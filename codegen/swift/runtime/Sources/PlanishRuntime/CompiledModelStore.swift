import Foundation

/// Keeps what a package is compiled into on this device, under the hash of its content: Core ML compiles a package in
/// seconds and loads the outcome in milliseconds.
///
/// Outcomes are made beside and moved into place, so that an interruption leaves none that is half there.
public actor CompiledModelStore {
    private let folder: URL
    private var underWay: [String: Task<URL, any Error>] = [:]

    /// - Parameter folder: where outcomes are kept, such as a folder in the caches directory; it is made if need be.
    public init(folder: URL) { self.folder = folder }

    /// Where the outcome for a package lies; made by `compile` where it is not there yet.
    ///
    /// - Parameter compile: gives the place of a fresh outcome, which is moved away from there.
    public func outcome(
        for package: URL, suffix: String = "mlmodelc", compile: @escaping @Sendable (URL) async throws -> URL
    ) async throws -> URL {
        let key = try ContentHash.of(package: package)
        let place = folder.appendingPathComponent("\(key).\(suffix)")
        if FileManager.default.fileExists(atPath: place.path) { return place }
        if let task = underWay[key] { return try await task.value }
        let folder = self.folder
        let task = Task { () throws -> URL in
            let fresh = try await compile(package)
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            let beside = folder.appendingPathComponent(".\(UUID().uuidString)")
            try FileManager.default.moveItem(at: fresh, to: beside)
            do {
                try FileManager.default.moveItem(at: beside, to: place)
            } catch {
                try FileManager.default.removeItem(at: beside)
                // Another process may have been first.
                guard FileManager.default.fileExists(atPath: place.path) else { throw error }
            }
            return place
        }
        underWay[key] = task
        defer { underWay[key] = nil }
        return try await task.value
    }

    /// Removes the outcomes for all packages but those with these hashes.
    public func keepOnly(_ keys: Set<String>) throws {
        guard FileManager.default.fileExists(atPath: folder.path) else { return }
        for name in try FileManager.default.contentsOfDirectory(atPath: folder.path) {
            let key = String(name.prefix { $0 != "." })
            if !keys.contains(key) {
                try FileManager.default.removeItem(at: folder.appendingPathComponent(name))
            }
        }
    }
}
