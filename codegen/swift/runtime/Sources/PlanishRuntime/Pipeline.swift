/// Prepares, predicts and finishes at the same time: while one element is predicted, the next is prepared and the one
/// before is finished. Elements keep their order, and no more than a few are on the way.
public struct Pipeline<Input: Sendable, Prepared: Sendable, Predicted: Sendable, Output: Sendable>: Sendable {
    /// What went wrong, where, and for which element, the first being 0.
    public struct Failure: Error {
        public enum Stage: String, Sendable {
            case preprocess, predict, postprocess
        }

        public let stage: Stage
        public let element: Int
        public let reason: any Error
    }

    private let depth: Int
    private let preprocess: @Sendable (Input) async throws -> Prepared
    private let predict: @Sendable (Prepared) async throws -> Predicted
    private let postprocess: @Sendable (Predicted) async throws -> Output

    /// - Parameter depth: how many elements may wait between two stages.
    public init(
        depth: Int = 2,
        preprocess: @escaping @Sendable (Input) async throws -> Prepared,
        predict: @escaping @Sendable (Prepared) async throws -> Predicted,
        postprocess: @escaping @Sendable (Predicted) async throws -> Output
    ) {
        self.depth = max(1, depth)
        self.preprocess = preprocess
        self.predict = predict
        self.postprocess = postprocess
    }

    /// Sends all elements through, and hands each outcome to `consume`, in order.
    ///
    /// Returns when the last is consumed; at the first failure everything is cancelled. Nothing runs on afterwards.
    ///
    /// - Throws: `Failure`, what `inputs` or `consume` throw, `CancellationError`.
    public func run<Inputs: AsyncSequence & Sendable>(
        _ inputs: Inputs, consume: @escaping @Sendable (Output) async throws -> Void
    ) async throws where Inputs.Element == Input {
        let prepared = Channel<Prepared>(capacity: depth)
        let predicted = Channel<Predicted>(capacity: depth)
        let finished = Channel<Output>(capacity: depth)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                var element = 0
                for try await input in inputs {
                    let made = try await Self.named(.preprocess, element) { try await preprocess(input) }
                    try await prepared.send(made)
                    element += 1
                }
                prepared.finish()
            }
            group.addTask { try await Self.work(from: prepared, to: predicted, .predict, predict) }
            group.addTask { try await Self.work(from: predicted, to: finished, .postprocess, postprocess) }
            group.addTask {
                while let output = try await finished.next() { try await consume(output) }
            }
            // The first to fail cancels the others as its error leaves the group.
            while try await group.next() != nil {}
        }
    }

    private static func work<From, To>(
        from: Channel<From>, to: Channel<To>, _ stage: Failure.Stage,
        _ body: @Sendable (From) async throws -> To
    ) async throws {
        var element = 0
        while let one = try await from.next() {
            let made = try await named(stage, element) { try await body(one) }
            try await to.send(made)
            element += 1
        }
        to.finish()
    }

    private static func named<Made>(
        _ stage: Failure.Stage, _ element: Int, _ body: () async throws -> Made
    ) async throws -> Made {
        do {
            return try await body()
        } catch let error as CancellationError {
            throw error
        } catch {
            throw Failure(stage: stage, element: element, reason: error)
        }
    }
}
