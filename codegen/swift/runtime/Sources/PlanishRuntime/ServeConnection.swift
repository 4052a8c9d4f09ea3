#if os(macOS) || os(Linux)
import Foundation

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// One running `planish serve`: requests go out from one thread, replies come in on another.
///
/// Every request is answered exactly once: by its reply, by the end of the process, or by its own cancellation,
/// whatever comes first takes it off the list.
final class ServeConnection: Sendable {
    typealias Answer = (reply: Frame.Reply, features: Features)

    private struct State {
        var pending: [UInt64: CheckedContinuation<Answer, any Error>] = [:]
        var early: Set<UInt64> = []
        var next: UInt64 = 1
        var ended: String?
        var ready: Result<ModelDescription, any Error>?
        var waitingForReady: [CheckedContinuation<ModelDescription, any Error>] = []
    }

    private let child: ChildProcess
    private let state = Locked(State())
    private let outgoing = Outgoing()
    private let complaints = Locked<[UInt8]>([])

    /// How long a process may take to end by itself once its input is closed.
    private let patience: Double

    /// - Parameter startTimeout: how many seconds it may take to become ready; afterwards it is ended by force.
    /// - Throws: `InferenceError.engineUnavailable` where it cannot be started.
    init(
        _ executable: String, _ arguments: [String], environment: [String: String], startTimeout: Double,
        patience: Double = 3
    ) throws {
        child = try ChildProcess(executable, arguments, environment: environment)
        self.patience = patience
        DispatchQueue.global().asyncAfter(deadline: .now() + startTimeout) { [weak self] in
            guard let self, self.state.withLock({ $0.ready == nil }) else { return }
            self.kill()
        }
        let errorsRead = DispatchSemaphore(value: 0)
        Thread.detachNewThread { [self] in
            readErrors()
            errorsRead.signal()
        }
        Thread.detachNewThread { [self] in write() }
        Thread.detachNewThread { [self] in read(errorsRead) }
    }

    var processIdentifier: Int32 { child.identifier }
    var hasEnded: Bool { state.withLock { $0.ended != nil } }
    var pendingCount: Int { state.withLock { $0.pending.count } }

    /// The model, once it is loaded.
    func ready() async throws -> ModelDescription {
        try await withCheckedThrowingContinuation { continuation in
            let known = state.withLock { state -> Result<ModelDescription, any Error>? in
                if state.ready == nil { state.waitingForReady.append(continuation) }
                return state.ready
            }
            if let known { continuation.resume(with: known) }
        }
    }

    /// Asks, and waits for the reply.
    ///
    /// - Throws: what the server says, `engineLost` where it ends before, `CancellationError`.
    func ask(op: String? = nil, state number: Int? = nil, _ inputs: Features = Features()) async throws -> Answer {
        try Task.checkCancellation()
        let id = state.withLock { state -> UInt64 in
            state.next += 1
            return state.next
        }
        let bytes = try Frame.encode(Frame.Request(id: id, op: op, state: number), inputs)
        let answer = try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Answer, any Error>) in
                let refusal = state.withLock { state -> (any Error)? in
                    if state.early.remove(id) != nil { return CancellationError() }
                    if let ended = state.ended { return InferenceError.engineLost(ended) }
                    state.pending[id] = continuation
                    // Inside the lock, so that requests are written in the order of their places in the list.
                    outgoing.append(bytes, id)
                    return nil
                }
                if let refusal { continuation.resume(throwing: refusal) }
            }
        } onCancel: {
            let waiting = state.withLock { state -> CheckedContinuation<Answer, any Error>? in
                let waiting = state.pending.removeValue(forKey: id)
                if waiting == nil, state.ended == nil { state.early.insert(id) }
                return waiting
            }
            outgoing.remove(id)
            waiting?.resume(throwing: CancellationError())
        }
        state.withLock { _ = $0.early.remove(id) }
        if let failure = answer.reply.error { throw Self.error(of: failure) }
        return answer
    }

    /// Sends without waiting; the reply is passed over.
    func tell(op: String, state number: Int) {
        if let bytes = try? Frame.encode(Frame.Request(id: 0, op: op, state: number)) { outgoing.append(bytes, 0) }
    }

    /// Closes the server's input, upon which it ends; by force, where it does not.
    func close() {
        outgoing.close()
        DispatchQueue.global().asyncAfter(deadline: .now() + patience) { [child] in child.signal(SIGKILL) }
    }

    /// Ends the server at once, as a crash would.
    func kill() { child.signal(SIGKILL) }

    private static func error(of failure: Frame.Failure) -> InferenceError {
        let text = failure.remedy.map { "\(failure.message) (\($0))" } ?? failure.message
        return failure.kind == "evaluation" || failure.kind == "memory"
            ? .evaluation(text) : .protocolViolation(text)
    }

    // MARK: Threads

    private func write() {
        ChildProcess.holdBackBrokenPipes()
        while let bytes = outgoing.next() {
            if !ChildProcess.write(child.input, bytes) { break }
        }
        Self.close(child.input)
    }

    private func read(_ errorsRead: DispatchSemaphore) {
        var violation: String?
        while violation == nil {
            let start = ChildProcess.read(child.output, 4)
            guard start.count == 4 else { break }
            let length = Int(Frame.number(start[...]))
            let payload = ChildProcess.read(child.output, length)
            guard payload.count == length else { break }
            do {
                take(try Frame.decode(payload))
            } catch {
                violation = String(describing: error)
                child.signal(SIGKILL)
            }
        }
        outgoing.close()
        let end = child.reap(patience: patience)
        _ = errorsRead.wait(timeout: .now() + 1)
        let said = String(decoding: complaints.withLock { $0 }, as: UTF8.self)
            .trimmingCharacters(in: .whitespacesAndNewlines)
        finish([violation, end, said.isEmpty ? nil : said].compactMap { $0 }.joined(separator: "; "))
        Self.close(child.output)
    }

    /// The end of what the server complains about.
    private func readErrors() {
        while true {
            let some = ChildProcess.read(child.errors, 1)
            if some.isEmpty { break }
            complaints.withLock { text in
                text += some
                if text.count > 4096 { text.removeFirst(2048) }
            }
        }
        Self.close(child.errors)
    }

    private func take(_ answer: Answer) {
        if answer.reply.ready != nil {
            let outcome: Result<ModelDescription, any Error>
            if answer.reply.ready == 1, let description = answer.reply.description {
                outcome = .success(description)
            } else {
                outcome = .failure(InferenceError.protocolViolation("an unknown version of the protocol"))
            }
            becomeReady(outcome)
        } else if let id = answer.reply.id {
            state.withLock { $0.pending.removeValue(forKey: id) }?.resume(returning: answer)
        }
    }

    private func becomeReady(_ outcome: Result<ModelDescription, any Error>) {
        let waiting = state.withLock { state -> [CheckedContinuation<ModelDescription, any Error>] in
            guard state.ready == nil else { return [] }
            state.ready = outcome
            defer { state.waitingForReady = [] }
            return state.waitingForReady
        }
        for one in waiting { one.resume(with: outcome) }
    }

    private func finish(_ reason: String) {
        becomeReady(.failure(InferenceError.engineUnavailable(reason)))
        let lost = state.withLock { state -> [CheckedContinuation<Answer, any Error>] in
            state.ended = reason
            defer { state.pending = [:] }
            return Array(state.pending.values)
        }
        for one in lost { one.resume(throwing: InferenceError.engineLost(reason)) }
    }

    private static func close(_ file: Int32) {
        #if canImport(Glibc)
        _ = Glibc.close(file)
        #else
        _ = Darwin.close(file)
        #endif
    }
}

/// What is still to be written, for a thread that waits for it.
private final class Outgoing: @unchecked Sendable {
    private let condition = NSCondition()
    private var waiting: [(bytes: [UInt8], id: UInt64)] = []
    private var closed = false

    func append(_ bytes: [UInt8], _ id: UInt64) {
        condition.lock()
        defer { condition.unlock() }
        if closed { return }
        waiting.append((bytes, id))
        condition.signal()
    }

    /// Takes a request back that was not written yet.
    func remove(_ id: UInt64) {
        condition.lock()
        defer { condition.unlock() }
        waiting.removeAll { $0.id == id }
    }

    func close() {
        condition.lock()
        defer { condition.unlock() }
        closed = true
        condition.signal()
    }

    /// The next bytes; nil once it is closed and nothing is left.
    func next() -> [UInt8]? {
        condition.lock()
        defer { condition.unlock() }
        while waiting.isEmpty, !closed { condition.wait() }
        return waiting.isEmpty ? nil : waiting.removeFirst().bytes
    }
}
#endif
