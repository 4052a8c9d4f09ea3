import Foundation

/// Collects requests of many callers into calls of several rows.
///
/// A call starts when enough requests wait, or when the first of them has waited long enough, one call at a time.
/// Requests are served in the order in which they came; each is answered exactly once: with its own rows, or with the
/// reason why not. A request that does not fit the model fails at once and harms no other.
public actor DynamicBatcher {
    public struct Configuration: Sendable {
        /// How many requests share a call at most; the model may allow fewer.
        public var maximumBatch = 32
        /// How long a request waits for others at most.
        public var maximumDelay: Duration = .milliseconds(2)
        /// How many requests may wait.
        public var capacity = 1024
        /// What becomes of a request for which there is no room.
        public var overflow = Overflow.suspend

        public enum Overflow: Sendable {
            /// Its caller waits.
            case suspend
            /// It fails with `InferenceError.queueFull`.
            case reject
        }

        public init() {}
    }

    private struct Request {
        let id: UInt64
        let inputs: Features
        let arrival: ContinuousClock.Instant
    }

    private let engine: any InferenceEngine
    private let stacker: RowStacker
    private let configuration: Configuration
    private let most: Int
    private let places: AsyncSemaphore
    public nonisolated let metrics: Metrics

    private var queue: [Request] = []
    private var answers: [UInt64: CheckedContinuation<Features, any Error>] = [:]
    private var next: UInt64 = 0
    private var running = false
    private var closed = false
    private var timer: Task<Void, Never>?
    private var idle: [CheckedContinuation<Void, Never>] = []

    /// - Throws: `InferenceError.rowsNotIndependent` where requests must not share a call, `unsupported` where the model
    ///   would let them and the engine does not.
    public init(
        _ engine: any InferenceEngine, configuration: Configuration = Configuration(), metrics: Metrics = Metrics()
    ) throws {
        guard let stacker = RowStacker(engine.description) else { throw Self.refusal(of: engine.description) }
        self.engine = engine
        self.stacker = stacker
        self.configuration = configuration
        self.metrics = metrics
        most = max(1, min(configuration.maximumBatch, stacker.most))
        places = AsyncSemaphore(configuration.capacity)
    }

    private static func refusal(of model: ModelDescription) -> InferenceError {
        guard model.metadata["planish.rows"] == "independent" else { return .rowsNotIndependent(model: model.name) }
        return .unsupported(
            "rows of '\(model.name)' do not mix, but would not come out the same to the bit together as alone")
    }

    /// How many requests wait.
    public var waitingCount: Int { queue.count }

    /// Makes a prediction together with those of others.
    ///
    /// - Parameter deadline: when the result is of no use any more.
    /// - Throws: `InferenceError`, or `CancellationError` as soon as the task is cancelled.
    public func predict(
        _ inputs: Features, deadline: ContinuousClock.Instant? = nil
    ) async throws -> Features {
        let arrival = ContinuousClock.now
        do {
            let result = try await answered(inputs, arrival, deadline)
            metrics.record((ContinuousClock.now - arrival).seconds, as: .latency)
            return result
        } catch {
            metrics.record(failure: error)
            throw error
        }
    }

    /// Takes no more requests, and returns when those that wait are answered.
    public func close() async {
        closed = true
        flush()
        if queue.isEmpty, !running { return }
        await withCheckedContinuation { idle.append($0) }
    }

    private func answered(
        _ inputs: Features, _ arrival: ContinuousClock.Instant, _ deadline: ContinuousClock.Instant?
    ) async throws -> Features {
        if closed { throw InferenceError.closed }
        try engine.description.check(inputs)
        if configuration.overflow == .reject, answers.count >= configuration.capacity {
            throw InferenceError.queueFull(capacity: configuration.capacity)
        }
        try await places.wait()
        defer { places.signal() }
        if closed { throw InferenceError.closed }
        next += 1
        let id = next
        let expiry = deadline.map { deadline in
            Task { [weak self] in
                try await Task.sleep(until: deadline, clock: .continuous)
                await self?.resign(id, with: InferenceError.deadlineExceeded)
            }
        }
        defer { expiry?.cancel() }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                if Task.isCancelled {
                    continuation.resume(throwing: CancellationError())
                    return
                }
                answers[id] = continuation
                queue.append(Request(id: id, inputs: inputs, arrival: arrival))
                schedule()
            }
        } onCancel: {
            Task { await self.resign(id, with: CancellationError()) }
        }
    }

    /// Answers a request with the reason why it will not be served; its place in a call under way goes unused.
    private func resign(_ id: UInt64, with reason: any Error) {
        guard let answer = answers.removeValue(forKey: id) else { return }
        queue.removeAll { $0.id == id }
        answer.resume(throwing: reason)
        settle()
    }

    /// Starts a call if it is time for one, or sees to it that one is started in time.
    private func schedule() {
        guard !running, let first = queue.first else { return }
        let rows = queue.prefix(most).reduce(0) { $0 + stacker.count($1.inputs) }
        let due = first.arrival + configuration.maximumDelay
        if rows >= most || closed || ContinuousClock.now >= due {
            flush()
        } else if timer == nil {
            timer = Task { [weak self] in
                do { try await Task.sleep(until: due, clock: .continuous) } catch { return }
                await self?.timeIsUp()
            }
        }
    }

    private func timeIsUp() {
        timer = nil
        schedule()
    }

    private func flush() {
        guard !running, !queue.isEmpty else { return }
        timer?.cancel()
        timer = nil
        running = true
        var rows = stacker.count(queue[0].inputs)
        var end = 1
        while end < queue.count, stacker.fit(queue[0].inputs, queue[end].inputs),
            rows + stacker.count(queue[end].inputs) <= most
        {
            rows += stacker.count(queue[end].inputs)
            end += 1
        }
        let batch = Array(queue[..<end])
        queue.removeFirst(end)
        let start = ContinuousClock.now
        for one in batch { metrics.record((start - one.arrival).seconds, as: .queue) }
        metrics.record(Double(batch.count), as: .batchSize)
        // A task of its own: no caller's cancellation may reach the calls of others.
        Task { [engine] in
            let results = await engine.predict(batch: batch.map(\.inputs))
            self.finish(batch, results, start)
        }
    }

    private func finish(
        _ batch: [Request], _ results: [Result<Features, any Error>], _ start: ContinuousClock.Instant
    ) {
        metrics.record((ContinuousClock.now - start).seconds, as: .prediction)
        running = false
        for (i, one) in batch.enumerated() {
            guard let answer = answers.removeValue(forKey: one.id) else { continue }
            answer.resume(
                with: i < results.count
                    ? results[i] : .failure(InferenceError.protocolViolation("fewer results than requests")))
        }
        schedule()
        settle()
    }

    private func settle() {
        guard queue.isEmpty, !running else { return }
        for one in idle { one.resume() }
        idle = []
    }
}
