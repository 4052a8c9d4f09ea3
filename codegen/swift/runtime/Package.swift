// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "PlanishRuntime",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [.library(name: "PlanishRuntime", targets: ["PlanishRuntime"])],
    targets: [.target(name: "PlanishRuntime")]
)
