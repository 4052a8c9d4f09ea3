import Foundation

/// The plan of a folder that `compile --hybrid` writes: parts in the order in which they run (docs/metal.md).
public struct HybridPackage: Sendable, Codable {
    public struct Part: Sendable, Codable {
        /// `coreml` or `metal`.
        public let kind: String
        /// The part's package, in the folder.
        public let package: String
        public let inputs: [String]
        public let outputs: [String]
    }

    public let name: String
    public let inputs: [String]
    public let outputs: [String]
    public let parts: [Part]

    /// - Throws: `InferenceError.unsupported` where the folder has no plan, or one that cannot be read.
    public init(folder: URL) throws {
        do {
            let data = try Data(contentsOf: folder.appendingPathComponent("plan.json"))
            self = try JSONDecoder().decode(HybridPackage.self, from: data)
        } catch {
            throw InferenceError.unsupported("\(folder.path) is no folder of parts: \(error)")
        }
    }
}

extension HybridEngine {
    /// The parts of a folder, each on an engine of its own.
    ///
    /// Packages of an app carry the descriptions that Core ML needs; `planish swift` takes such a folder, too.
    ///
    /// - Parameter load: makes the engine of a part, given its package.
    /// - Throws: `InferenceError.unsupported` where there is no plan, or parts do not fit together; what `load` throws.
    public convenience init(
        folder: URL, load: (HybridPackage.Part, URL) async throws -> any InferenceEngine
    ) async throws {
        let whole = try HybridPackage(folder: folder)
        var engines: [any InferenceEngine] = []
        do {
            for part in whole.parts {
                engines.append(try await load(part, folder.appendingPathComponent(part.package)))
            }
            try self.init(name: whole.name, parts: engines, outputs: whole.outputs)
        } catch {
            for engine in engines { await engine.shutdown() }
            throw error
        }
    }

    #if os(macOS) || os(Linux)
    /// The parts of a folder, each in a process of its own.
    public static func inProcesses(
        folder: URL, configuration: ProcessEngine.Configuration = .init()
    ) async throws -> HybridEngine {
        try await HybridEngine(folder: folder) { _, package in
            try await ProcessEngine(package: package, configuration: configuration)
        }
    }
    #endif
}
