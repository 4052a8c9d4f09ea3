import Foundation

/// A value that only one thread sees at a time.
///
/// `Synchronization.Mutex` would do, but needs iOS 18.
final class Locked<Value>: @unchecked Sendable {
    private let lock = NSLock()
    private var value: Value

    init(_ value: Value) { self.value = value }

    func withLock<Result>(_ body: (inout Value) throws -> Result) rethrows -> Result {
        lock.lock()
        defer { lock.unlock() }
        return try body(&value)
    }
}

/// Lets some tasks through at a time; others wait in the order in which they came.
final class AsyncSemaphore: Sendable {
    private struct State {
        var free: Int
        var next: UInt64 = 0
        var waiting: [(id: UInt64, continuation: CheckedContinuation<Void, any Error>)] = []
        var cancelled: Set<UInt64> = []
    }

    private let state: Locked<State>

    init(_ free: Int) { state = Locked(State(free: free)) }

    /// Takes a place; give it back with `signal`.
    ///
    /// - Throws: `CancellationError` where the task is cancelled before it has one.
    func wait() async throws {
        try Task.checkCancellation()
        let id = state.withLock { state -> UInt64 in
            state.next += 1
            return state.next
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                let outcome = state.withLock { state -> Result<Void, any Error>? in
                    if state.cancelled.remove(id) != nil { return .failure(CancellationError()) }
                    if state.free > 0 {
                        state.free -= 1
                        return .success(())
                    }
                    state.waiting.append((id, continuation))
                    return nil
                }
                if let outcome { continuation.resume(with: outcome) }
            }
        } onCancel: {
            let waiting = state.withLock { state -> CheckedContinuation<Void, any Error>? in
                guard let place = state.waiting.firstIndex(where: { $0.id == id }) else {
                    state.cancelled.insert(id)
                    return nil
                }
                return state.waiting.remove(at: place).continuation
            }
            waiting?.resume(throwing: CancellationError())
        }
        state.withLock { _ = $0.cancelled.remove(id) }
    }

    /// Gives a place back.
    func signal() {
        let next = state.withLock { state -> CheckedContinuation<Void, any Error>? in
            if state.waiting.isEmpty {
                state.free += 1
                return nil
            }
            return state.waiting.removeFirst().continuation
        }
        next?.resume()
    }
}

/// Hands elements from one task to another, with room for some between them.
final class Channel<Element: Sendable>: Sendable {
    private let room: AsyncSemaphore
    private let filled = AsyncSemaphore(0)
    private let state = Locked<(elements: [Element], ended: Bool)>(([], false))

    init(capacity: Int) { room = AsyncSemaphore(capacity) }

    /// Waits for room, then leaves an element.
    func send(_ element: Element) async throws {
        try await room.wait()
        state.withLock { $0.elements.append(element) }
        filled.signal()
    }

    /// Says that no more elements come.
    func finish() {
        state.withLock { $0.ended = true }
        filled.signal()
    }

    /// Waits for an element; nil once there are no more.
    func next() async throws -> Element? {
        try await filled.wait()
        let element = state.withLock { state in state.elements.isEmpty ? nil : state.elements.removeFirst() }
        if element == nil { filled.signal() } else { room.signal() }
        return element
    }
}
