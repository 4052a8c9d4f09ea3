import Foundation

/// A package among an app's resources, and what it takes and gives.
public struct ModelPart: Sendable {
    public let package: URL
    public let description: ModelDescription
    /// Which of the package's functions; its only one, or its default, where nil.
    public let function: String?

    public init(package: URL, description: ModelDescription, function: String? = nil) {
        self.package = package
        self.description = description
        self.function = function
    }

    /// The best engine for the package on this system: Core ML or Metal where there are, a process elsewhere.
    ///
    /// - Parameter store: where Core ML's compiled models are kept; the caches directory where nil.
    public func load(
        wished: ComputeUnits = .all, store: CompiledModelStore? = nil
    ) async throws -> Placed<any InferenceEngine> {
        #if canImport(Metal)
        if description.kind == "metal" {
            return Placed(engine: try MetalEngine(package: package), units: .cpuAndGPU, refusals: [])
        }
        #endif
        #if canImport(CoreML)
        if description.kind != "metal" {
            let caches = FileManager.default.urls(for: .cachesDirectory, in: .userDomainMask)[0]
            let store = store ?? CompiledModelStore(folder: caches.appendingPathComponent("planish"))
            let placed = try await CoreMLEngine.load(
                package: package, description: description, store: store, wished: wished, function: function)
            return Placed(engine: placed.engine, units: placed.units, refusals: placed.refusals)
        }
        #endif
        #if os(macOS) || os(Linux)
        let engine = try await ProcessEngine(package: package, function: function)
        return Placed(engine: engine, units: .cpuOnly, refusals: [])
        #else
        throw InferenceError.unsupported("nothing here runs '\(description.name)'")
        #endif
    }
}

/// A model with inputs and outputs of its own types. `planish swift` writes these.
public protocol TypedModel: Sendable {
    associatedtype Input: Sendable
    associatedtype Output: Sendable

    static var modelDescription: ModelDescription { get }
    /// The packages that make up the model, in the order in which they run.
    static var parts: [ModelPart] { get }
    var engine: any InferenceEngine { get }

    /// - Parameter engine: one that runs this very model.
    init(engine: any InferenceEngine) throws

    static func features(of input: Input) -> Features
    static func output(of features: Features) throws -> Output
}

extension TypedModel {
    /// Loads the model on the best units that take it.
    public static func load(
        wished: ComputeUnits = .all, store: CompiledModelStore? = nil
    ) async throws -> Self {
        try Self(engine: try await loadEngine(wished: wished, store: store).engine)
    }

    /// The engine alone, with the units that it runs on.
    public static func loadEngine(
        wished: ComputeUnits = .all, store: CompiledModelStore? = nil
    ) async throws -> Placed<any InferenceEngine> {
        var loaded: [Placed<any InferenceEngine>] = []
        do {
            for part in parts { loaded.append(try await part.load(wished: wished, store: store)) }
            if loaded.count == 1 { return loaded[0] }
            let outputs = modelDescription.outputs.map(\.name)
            let engine = try HybridEngine(name: modelDescription.name, parts: loaded.map(\.engine), outputs: outputs)
            return Placed(engine: engine, units: wished, refusals: loaded.flatMap(\.refusals))
        } catch {
            for part in loaded { await part.engine.shutdown() }
            throw error
        }
    }

    /// For a `ModelCache`: the model by the hash of its packages.
    public static func source(wished: ComputeUnits = .all) throws -> ModelCache.Source {
        let hashes = try parts.map { try ContentHash.of(package: $0.package) + ($0.function.map { ":\($0)" } ?? "") }
        let bytes = try parts.reduce(0) { $0 + (try ContentHash.byteCount(of: $1.package)) }
        return ModelCache.Source(key: "\(hashes.joined(separator: "+")) \(wished.rawValue)", bytes: bytes) {
            try await loadEngine(wished: wished).engine
        }
    }

    /// - Throws: `InferenceError.unsupported` where an engine takes or gives something else than this model.
    public static func check(_ engine: any InferenceEngine) throws {
        let (own, other) = (modelDescription, engine.description)
        guard own.inputs == other.inputs, own.outputs == other.outputs, own.states == other.states else {
            throw InferenceError.unsupported("the engine runs '\(other.name)', which is not '\(own.name)' as compiled")
        }
    }

    public func predict(_ input: Input) async throws -> Output {
        try Self.output(of: try await engine.predict(Self.features(of: input)))
    }

    /// Several predictions as fast as the engine can; each succeeds or fails by itself.
    public func predict(batch: [Input]) async -> [Result<Output, any Error>] {
        await engine.predict(batch: batch.map { Self.features(of: $0) }).map { result in
            Result { try Self.output(of: try result.get()) }
        }
    }

    /// One prediction, in a call that it shares with others.
    public func predict(
        _ input: Input, with batcher: DynamicBatcher, deadline: ContinuousClock.Instant? = nil
    ) async throws -> Output {
        try Self.output(of: try await batcher.predict(Self.features(of: input), deadline: deadline))
    }
}

/// A model that keeps something from call to call.
public protocol StatefulModel: TypedModel {}

extension StatefulModel {
    /// A new state, zeros.
    public func makeState() async throws -> any EngineState { try await engine.makeState() }

    /// A prediction that goes on from a state and changes it. Calls with one state must not overlap.
    public func predict(_ input: Input, state: any EngineState) async throws -> Output {
        try Self.output(of: try await engine.predict(Self.features(of: input), state: state))
    }
}

/// The values of all classes, in the order of the model's.
public struct ClassScores: Sendable, Equatable {
    public let classes: [String]
    public let values: [Double]

    public init(classes: [String], values: [Double]) throws {
        guard classes.count == values.count else {
            throw InferenceError.malformedTensor("\(values.count) scores for \(classes.count) classes")
        }
        self.classes = classes
        self.values = values
    }

    /// The best few, the best first.
    public func top(_ count: Int) -> [(name: String, value: Double)] {
        let order = values.indices.sorted { (values[$0], -$0) > (values[$1], -$1) }
        return order.prefix(count).map { (classes[$0], values[$0]) }
    }

    public subscript(_ name: String) -> Double? { classes.firstIndex(of: name).map { values[$0] } }
}

extension Features {
    /// The only element of an output without axes, or of a vector of one.
    public func scalar<Scalar: TensorScalar>(_ name: String) throws -> Scalar {
        let scalars: [Scalar] = try tensor(name).scalars()
        guard scalars.count == 1 else {
            throw InferenceError.malformedTensor("output '\(name)' has \(scalars.count) elements, not one")
        }
        return scalars[0]
    }
}

extension TensorScalar {
    /// The number as a tensor without axes.
    public var tensor: Tensor {
        Tensor(unchecked: Self.elementType, [], withUnsafeBytes(of: self) { [UInt8]($0) })
    }
}
