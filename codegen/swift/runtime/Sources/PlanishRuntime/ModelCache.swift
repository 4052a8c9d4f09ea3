import Foundation

/// Keeps models loaded: each content once, the least recently used going first when bytes run out.
///
/// All that is resident counts: what is loading, what is in use, and what has been dropped but is still in use. A load
/// for which there is no room waits until uses end, so a task that uses one model must not ask for another where both
/// do not fit.
public actor ModelCache {
    /// Where a model comes from.
    public struct Source: Sendable {
        /// What tells contents apart, such as `ContentHash.of(package:)`.
        public let key: String
        /// What it counts for while it is loaded.
        public let bytes: Int
        let load: @Sendable () async throws -> any InferenceEngine

        public init(key: String, bytes: Int, load: @escaping @Sendable () async throws -> any InferenceEngine) {
            self.key = key
            self.bytes = bytes
            self.load = load
        }

        /// A package, counted by the bytes of its files.
        public init(
            package: URL, load: @escaping @Sendable (URL) async throws -> any InferenceEngine
        ) throws {
            self.init(
                key: try ContentHash.of(package: package), bytes: try ContentHash.byteCount(of: package)
            ) { try await load(package) }
        }
    }

    /// How hard the system is pressed for memory.
    public enum Pressure: Sendable {
        /// Half of the bytes are kept.
        case warning
        /// Only what is in use is kept.
        case critical
    }

    public struct Statistics: Sendable, Equatable {
        public var hits = 0
        public var loads = 0
        public var failures = 0
        public var evictions = 0
        /// The most bytes that were ever resident at once.
        public var peakBytes = 0
    }

    private final class Entry {
        let key: String
        let bytes: Int
        let task: Task<any InferenceEngine, any Error>
        var uses = 0
        var lastUse: UInt64 = 0
        var dropped = false

        init(_ key: String, _ bytes: Int, _ task: Task<any InferenceEngine, any Error>) {
            self.key = key
            self.bytes = bytes
            self.task = task
        }
    }

    public let byteLimit: Int
    private let warmUp: @Sendable (any InferenceEngine) async throws -> Void
    private var entries: [String: Entry] = [:]
    private var waiting: [UInt64: CheckedContinuation<Void, Never>] = [:]
    private var tickets: UInt64 = 0
    private var clock: UInt64 = 0
    /// Of the resident bytes, those of models that are being shut down.
    private var leavingBytes = 0
    public private(set) var residentBytes = 0
    public private(set) var statistics = Statistics()

    /// - Parameter warmUp: what is done with a model once it is loaded, before anyone gets it, such as `warmUp(runs:)`.
    public init(
        byteLimit: Int, warmUp: @escaping @Sendable (any InferenceEngine) async throws -> Void = { _ in }
    ) {
        self.byteLimit = byteLimit
        self.warmUp = warmUp
    }

    /// Zeros through the model a few times, so that the first real call is as fast as the next.
    public static func warmUp(runs: Int) -> @Sendable (any InferenceEngine) async throws -> Void {
        { engine in
            let zeros = try engine.description.zeros()
            for _ in 0..<runs { _ = try await engine.predict(zeros) }
        }
    }

    /// Uses a model, which is loaded if need be and stays at least until `body` returns.
    ///
    /// - Throws: `InferenceError.modelTooLarge`, what loading throws (the next use tries again), what `body` throws.
    public func withModel<Result: Sendable>(
        _ source: Source, _ body: @Sendable (any InferenceEngine) async throws -> Result
    ) async throws -> Result {
        let entry = try await entry(for: source)
        defer { endUse(of: entry) }
        let engine: any InferenceEngine
        do {
            engine = try await entry.task.value
        } catch {
            if !entry.dropped { statistics.failures += 1 }
            drop(entry)
            throw error
        }
        return try await body(engine)
    }

    /// Whether a model of this content is there or being loaded.
    public func contains(_ key: String) -> Bool { entries[key] != nil }

    /// Drops models that are not in use, as the system asks.
    public func handle(_ pressure: Pressure) {
        let limit = pressure == .critical ? 0 : byteLimit / 2
        while residentBytes - leavingBytes > limit, evictOne() {}
    }

    /// Drops all models; those in use go when their uses end.
    public func removeAll() {
        for entry in entries.values { drop(entry) }
    }

    private func entry(for source: Source) async throws -> Entry {
        guard source.bytes <= byteLimit else {
            throw InferenceError.modelTooLarge(bytes: source.bytes, limit: byteLimit)
        }
        while true {
            try Task.checkCancellation()
            if let entry = entries[source.key] {
                statistics.hits += 1
                return begin(entry)
            }
            while residentBytes - leavingBytes + source.bytes > byteLimit, evictOne() {}
            if residentBytes + source.bytes <= byteLimit { return begin(startLoading(source)) }
            await room()
        }
    }

    /// Waits until bytes may have become free, or the task is cancelled.
    private func room() async {
        tickets += 1
        let ticket = tickets
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                if Task.isCancelled { continuation.resume() } else { waiting[ticket] = continuation }
            }
        } onCancel: {
            Task { await self.giveUp(ticket) }
        }
    }

    private func giveUp(_ ticket: UInt64) { waiting.removeValue(forKey: ticket)?.resume() }

    private func begin(_ entry: Entry) -> Entry {
        clock += 1
        entry.lastUse = clock
        entry.uses += 1
        return entry
    }

    private func startLoading(_ source: Source) -> Entry {
        residentBytes += source.bytes
        statistics.peakBytes = max(statistics.peakBytes, residentBytes)
        statistics.loads += 1
        let warmUp = self.warmUp
        let task = Task {
            let engine = try await source.load()
            do {
                try await warmUp(engine)
            } catch {
                await engine.shutdown()
                throw error
            }
            return engine
        }
        let entry = Entry(source.key, source.bytes, task)
        entries[source.key] = entry
        return entry
    }

    private func endUse(of entry: Entry) {
        entry.uses -= 1
        if entry.uses == 0, entry.dropped { release(entry) }
        wake()
    }

    private func evictOne() -> Bool {
        let idle = entries.values.filter { $0.uses == 0 }
        guard let oldest = idle.min(by: { $0.lastUse < $1.lastUse }) else { return false }
        statistics.evictions += 1
        drop(oldest)
        return true
    }

    private func drop(_ entry: Entry) {
        guard !entry.dropped else { return }
        entry.dropped = true
        entries[entry.key] = nil
        if entry.uses == 0 { release(entry) }
    }

    private func release(_ entry: Entry) {
        leavingBytes += entry.bytes
        Task { [task = entry.task, bytes = entry.bytes] in
            if case .success(let engine) = await task.result { await engine.shutdown() }
            self.gone(bytes)
        }
    }

    private func gone(_ bytes: Int) {
        leavingBytes -= bytes
        residentBytes -= bytes
        wake()
    }

    private func wake() {
        let all = waiting.values
        waiting = [:]
        for one in all { one.resume() }
    }
}

extension ModelDescription {
    /// Zeros for every input, of the shapes to assume when nothing is said.
    ///
    /// - Throws: `InferenceError.unsupported` where a size is only known at a call.
    public func zeros() throws -> Features {
        var out = Features()
        for feature in inputs {
            guard let type = feature.elementType, feature.shape.allSatisfy({ $0 != nil }) else {
                throw InferenceError.unsupported("input '\(feature.name)' has no shape to assume")
            }
            let shape = feature.shape.compactMap { $0 }
            out.tensors[feature.name] = Tensor(
                unchecked: type, shape, [UInt8](repeating: 0, count: shape.reduce(type.size, *)))
        }
        return out
    }
}

#if canImport(Darwin)
extension ModelCache {
    /// Drops models when the system is pressed for memory, until the source that is returned goes.
    public nonisolated func followMemoryPressure() -> any DispatchSourceMemoryPressure {
        let source = DispatchSource.makeMemoryPressureSource(eventMask: [.warning, .critical], queue: .global())
        source.setEventHandler { [weak self, weak source] in
            let critical = source?.data.contains(.critical) ?? false
            Task { [weak self] in await self?.handle(critical ? .critical : .warning) }
        }
        source.activate()
        return source
    }
}
#endif
