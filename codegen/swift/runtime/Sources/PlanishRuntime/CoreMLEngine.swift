#if canImport(CoreML)
import CoreML
import Foundation

/// Runs a package in Core ML.
///
/// Core ML's models are used by one thread at a time, as its documentation asks for: a queue of their own.
public final class CoreMLEngine: InferenceEngine, @unchecked Sendable {
    public let description: ModelDescription
    private let model: MLModel
    private let queue = DispatchQueue(label: "planish.coreml", qos: .userInitiated)

    /// - Parameters:
    ///   - compiled: a `.mlmodelc`, such as a `CompiledModelStore` keeps.
    ///   - function: which of the model's functions; its only one, or its default, where nil.
    public init(
        compiled: URL, description: ModelDescription, units: ComputeUnits = .all, function: String? = nil
    ) async throws {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units.coreML
        if let function {
            guard #available(iOS 18, macOS 15, *) else {
                throw InferenceError.unsupported("models of several functions need iOS 18")
            }
            configuration.functionName = function
        }
        model = try await MLModel.load(contentsOf: compiled, configuration: configuration)
        self.description = description
    }

    /// Compiles a package, unless that was done before, and loads it on the best units that take it.
    public static func load(
        package: URL, description: ModelDescription, store: CompiledModelStore, wished: ComputeUnits = .all,
        function: String? = nil
    ) async throws -> Placed<CoreMLEngine> {
        let compiled = try await store.outcome(for: package) { try await MLModel.compileModel(at: $0) }
        return try await loadWithFallback(wished: wished) { units in
            try await CoreMLEngine(compiled: compiled, description: description, units: units, function: function)
        }
    }

    public func predict(_ inputs: Features) async throws -> Features {
        try description.check(inputs)
        return try await onQueue { engine in
            let given = try CoreMLConversion.provider(of: inputs, engine.description)
            return try CoreMLConversion.features(of: engine.model.prediction(from: given), engine.description)
        }
    }

    public func predict(_ inputs: Features, state: any EngineState) async throws -> Features {
        guard #available(iOS 18, macOS 15, *), let state = state as? CoreMLState else {
            throw InferenceError.unsupported("the state is one of another engine")
        }
        try description.check(inputs)
        return try await onQueue { engine in
            let given = try CoreMLConversion.provider(of: inputs, engine.description)
            let made = try engine.model.prediction(from: given, using: state.state)
            return try CoreMLConversion.features(of: made, engine.description)
        }
    }

    /// One call of Core ML's own for several requests, which need not be of one shape.
    public func predict(batch: [Features]) async -> [Result<Features, any Error>] {
        do {
            for one in batch { try description.check(one) }
            let made = try await onQueue { engine -> [Features] in
                let given = try batch.map { try CoreMLConversion.provider(of: $0, engine.description) }
                let out = try engine.model.predictions(fromBatch: MLArrayBatchProvider(array: given))
                return try (0..<out.count).map {
                    try CoreMLConversion.features(of: out.features(at: $0), engine.description)
                }
            }
            return made.map { .success($0) }
        } catch {
            return await predictTogether(batch)
        }
    }

    public func makeState() async throws -> any EngineState {
        guard !description.states.isEmpty else {
            throw InferenceError.unsupported("'\(description.name)' keeps no state")
        }
        guard #available(iOS 18, macOS 15, *) else { throw InferenceError.unsupported("states need iOS 18") }
        return try await onQueue { CoreMLState($0.model.makeState()) }
    }

    private func onQueue<Made: Sendable>(
        _ body: @escaping @Sendable (CoreMLEngine) throws -> Made
    ) async throws -> Made {
        try Task.checkCancellation()
        return try await withCheckedThrowingContinuation { continuation in
            queue.async {
                do {
                    continuation.resume(returning: try body(self))
                } catch let error as InferenceError {
                    continuation.resume(throwing: error)
                } catch {
                    continuation.resume(throwing: InferenceError.evaluation(error.localizedDescription))
                }
            }
        }
    }
}

@available(iOS 18, macOS 15, *)
private final class CoreMLState: EngineState, @unchecked Sendable {
    let state: MLState

    init(_ state: MLState) { self.state = state }
}

extension ComputeUnits {
    var coreML: MLComputeUnits {
        switch self {
        case .all: .all
        case .cpuAndNeuralEngine: .cpuAndNeuralEngine
        case .cpuAndGPU: .cpuAndGPU
        case .cpuOnly: .cpuOnly
        }
    }
}
#endif
