import Foundation
import Models
import Testing

@testable import PlanishRuntime

extension Planish {
    @Suite struct ValueTests {
        @Test func tensorsComeBackAsTheyWent() throws {
            #expect(try Tensor([1.5, -2] as [Float], shape: [2]).scalars() as [Float] == [1.5, -2])
            #expect(try Tensor([true, false], shape: [2, 1]).scalars() as [Bool] == [true, false])
            #expect(try Tensor([Float16(0.1)], shape: []).scalars() as [Float16] == [0.1])
            #expect(throws: InferenceError.self) { try Tensor([1, 2] as [Int32], shape: [3]) }
            #expect(throws: InferenceError.self) { try Tensor([1] as [Int32], shape: [-1, -1]) }
            #expect(throws: InferenceError.self) { try Tensor([1] as [Int32], shape: [1]).scalars() as [Float] }
        }

        @Test func shapedArraysAreRowMajor() throws {
            let array = try Shaped([0, 1, 2, 3, 4, 5] as [Int32], shape: [2, 3])
            #expect(array[1, 0] == 3)
            #expect(try Shaped<Int32>(array.tensor) == array)
            #expect(throws: InferenceError.self) { try Shaped([1.0], shape: [2]) }
        }

        @Test func numbersAreConvertedOrRefused() throws {
            let large = try Tensor([1 << 40, 3] as [Int64], shape: [2])
            #expect(throws: InferenceError.self) { try large.converted(to: .int32) }
            #expect(try large.converted(to: .float64).scalars() as [Double] == [1_099_511_627_776, 3])
            let half = try Tensor([1.0001, 65520] as [Float], shape: [2]).converted(to: .float16)
            #expect(try half.scalars() as [Float16] == [1, .infinity])
            #expect(throws: InferenceError.self) { try half.converted(to: .int32) }
            #expect(try Tensor([2, 0] as [UInt8], shape: [2]).converted(to: .bool).scalars() == [true, false])
        }

        @Test func picturesAndPlanes() throws {
            let picture = try PixelImage(width: 2, height: 1, pixels: [1, 2, 3, 4, 5, 6])
            #expect(try PixelImage(picture.tensor) == picture)
            let planes = try Tensor([1, 4, 2, 5, 3, 6] as [Float], shape: [1, 3, 1, 2])
            #expect(try PixelImage(planes) == picture)
            let blueFirst = try Tensor([3.2, 6, 2, 5, 1, 4] as [Float], shape: [1, 3, 1, 2])
            #expect(try PixelImage(blueFirst, bgr: true) == picture)
            #expect(throws: InferenceError.self) { try PixelImage(width: 2, height: 2, pixels: [1]) }
        }

        #if arch(arm64) || os(Linux)
        @Test func bytesAreHalves() {
            for byte in UInt8.min...UInt8.max {
                #expect(HalfByte.bits(of: byte) == Float16(byte).bitPattern)
                #expect(HalfByte.byte(of: Float16(byte).bitPattern) == byte)
            }
            for (value, byte): (Float16, UInt8) in [
                (-3, 0), (.nan, 0), (0.4, 0), (0.5, 1), (0.6, 1), (1.5, 2), (254.25, 254), (300, 255), (.infinity, 255),
            ] {
                #expect(HalfByte.byte(of: value.bitPattern) == byte, "\(value)")
            }
        }
        #endif

        @Test func hashesAreThoseOfTheStandardAndOfPlanish() throws {
            // FIPS 180-4 examples, and a length on each side of a block's end.
            let known = [
                "": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                String(repeating: "a", count: 55): "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318",
                String(repeating: "a", count: 64): "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb",
            ]
            for (text, hash) in known { #expect(ContentHash.hex(ContentHash.sha256(Data(text.utf8))) == hash) }
            struct Mark: Decodable {
                struct Model: Decodable {
                    struct Part: Decodable { let sha256: String }
                    let parts: [Part]
                }
                let models: [Model]
            }
            let mark = URL(fileURLWithPath: FileManager.default.currentDirectoryPath).appendingPathComponent(
                "planish.json")
            let models = try JSONDecoder().decode(Mark.self, from: Data(contentsOf: mark)).models
            #expect(try ContentHash.of(package: package(Gesture.self)) == models[0].parts[0].sha256)
            #expect(try ContentHash.of(package: package(Speech.self)) == models[5].parts[0].sha256)
        }

        @Test func aChangedPackageHasAnotherHash() throws {
            let folder = try temporaryFolder()
            defer { try? FileManager.default.removeItem(at: folder) }
            let file = folder.appendingPathComponent("a")
            try Data([1]).write(to: file)
            let first = try ContentHash.of(package: folder)
            #expect(try ContentHash.of(package: folder) == first)
            try Data([2, 3]).write(to: file)
            #expect(try ContentHash.of(package: folder) != first)
        }

        @Test func percentilesAreWithinOnePercent() {
            var chance = Chance(state: 1)
            var histogram = Histogram()
            var values: [Double] = []
            for _ in 0..<20_000 {
                let value = exp(Double.random(in: -12...3, using: &chance))
                histogram.record(value)
                values.append(value)
            }
            values.sort()
            for share in [0.01, 0.5, 0.9, 0.99, 0.999] {
                let exact = values[Int((share * 20_000).rounded(.up)) - 1]
                #expect(abs(histogram.percentile(share) - exact) <= 0.011 * exact)
            }
            #expect(histogram.percentile(1) == values.last)
            #expect(Histogram().percentile(0.5) == 0)
        }

        @Test func unitsAreTriedInOrder() async throws {
            var device = DeviceCapabilities(system: "iOS", version: "18", processorCount: 6, physicalMemory: 1 << 32)
            #expect(ComputeUnits.order(wished: .cpuAndNeuralEngine, on: device) == [.cpuAndNeuralEngine, .cpuOnly])
            device.neuralEngineCores = 0
            device.gpuName = "GPU"
            #expect(ComputeUnits.order(wished: .cpuAndNeuralEngine, on: device) == [.cpuAndGPU, .cpuOnly])
            let placed = try await loadWithFallback(wished: .all, on: device) { units -> String in
                if units != .cpuOnly { throw InferenceError.unsupported("not on \(units)") }
                return "loaded"
            }
            #expect(placed.units == .cpuOnly)
            #expect(placed.refusals.map(\.units) == [.all, .cpuAndGPU])
            await #expect(throws: InferenceError.unsupported("no")) {
                _ = try await loadWithFallback(wished: .cpuOnly, on: device) { _ -> String in
                    throw InferenceError.unsupported("no")
                }
            }
            #expect(DeviceCapabilities.current.processorCount > 0)
        }

        @Test func plansOfKernelsAreChecked() throws {
            let folder = WholeHand.parts[1].package
            let plan = try MetalPlan(package: folder)
            #expect(plan.description.inputs == WholeHand.parts[1].description.inputs)
            let weights = try Data(contentsOf: folder.appendingPathComponent("weights.bin")).count
            #expect(throws: InferenceError.self) { try plan.validate(weightBytes: weights - 1) }
            let text = try String(contentsOf: folder.appendingPathComponent("plan.json"), encoding: .utf8)
            for (good, bad) in [
                ("\"wait\": true", "\"wait\": false"), ("\"heap\": ", "\"heap\": -1"),
                ("\"threads\": ", "\"threads\": 99"), ("\"buffer\": 0", "\"buffer\": 99"),
                ("\"store\": \"float\"", "\"store\": \"double\""),
            ] {
                let broken = Data(text.replacingOccurrences(of: good, with: bad).utf8)
                let read = try JSONDecoder().decode(MetalPlan.self, from: broken)
                #expect(throws: InferenceError.self, "\(bad)") { try read.validate(weightBytes: weights) }
            }
        }
    }
}
