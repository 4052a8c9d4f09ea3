/// What a stateful model keeps between calls. It lives as long as somebody holds it.
public protocol EngineState: AnyObject, Sendable {}

/// Something that runs one model: Core ML, kernels, a process.
public protocol InferenceEngine: Sendable {
    var description: ModelDescription { get }

    /// Makes one prediction.
    ///
    /// - Throws: `InferenceError`, or `CancellationError` where the task was cancelled.
    func predict(_ inputs: Features) async throws -> Features

    /// Makes one prediction that goes on from a state and changes it. Calls with one state must not overlap.
    func predict(_ inputs: Features, state: any EngineState) async throws -> Features

    /// Makes several predictions as fast as the engine can; each succeeds or fails by itself, in their order.
    func predict(batch: [Features]) async -> [Result<Features, any Error>]

    /// A new state, zeros.
    func makeState() async throws -> any EngineState

    /// Ends the engine; what is still asked of it fails.
    func shutdown() async
}

extension InferenceEngine {
    public func predict(_ inputs: Features, state: any EngineState) async throws -> Features {
        throw InferenceError.unsupported("'\(description.name)' keeps no state")
    }

    public func makeState() async throws -> any EngineState {
        throw InferenceError.unsupported("'\(description.name)' keeps no state")
    }

    public func shutdown() async {}

    public func predict(batch: [Features]) async -> [Result<Features, any Error>] {
        await predictTogether(batch)
    }

    /// Predictions in calls of several rows where the model allows it, one after the other where not.
    ///
    /// A call of several rows that fails is repeated row by row, so that only those fail that are to blame; unless the
    /// engine itself was lost.
    public func predictTogether(_ batch: [Features]) async -> [Result<Features, any Error>] {
        guard let stacker = RowStacker(description) else { return await oneByOne(batch) }
        var out: [Result<Features, any Error>] = []
        var start = 0
        while start < batch.count {
            let end = stacker.end(of: batch, from: start)
            out += await together(Array(batch[start..<end]), stacker)
            start = end
        }
        return out
    }

    private func together(_ batch: [Features], _ stacker: RowStacker) async -> [Result<Features, any Error>] {
        if batch.count == 1, stacker.isWhole(batch[0]) { return await oneByOne(batch) }
        do {
            let outputs = try await predict(try stacker.stack(batch))
            return try stacker.unstack(outputs, of: batch).map { .success($0) }
        } catch InferenceError.evaluation where batch.count > 1 {
            return await oneByOne(batch)
        } catch InferenceError.malformedTensor where batch.count > 1 {
            return await oneByOne(batch)
        } catch {
            return batch.map { _ in .failure(error) }
        }
    }

    private func oneByOne(_ batch: [Features]) async -> [Result<Features, any Error>] {
        var out: [Result<Features, any Error>] = []
        for one in batch {
            do {
                out.append(.success(try await predict(one)))
            } catch {
                out.append(.failure(error))
            }
        }
        return out
    }
}
