import Foundation
import Models
import PlanishRuntime
import Testing

/// An engine that is only there to be kept: it weighs what it is said to, and knows whether it was shut down.
private final class Weight: InferenceEngine {
    let description: ModelDescription
    let ledger: Ledger
    let bytes: Int

    init(_ bytes: Int, _ ledger: Ledger) async {
        description = Gesture.modelDescription
        self.ledger = ledger
        self.bytes = bytes
        await ledger.add(bytes)
    }

    func predict(_ inputs: Features) async throws -> Features { inputs }
    func shutdown() async { await ledger.add(-bytes) }
}

/// The bytes of engines that exist, counted by themselves.
private actor Ledger {
    private(set) var bytes = 0
    private(set) var peak = 0

    func add(_ more: Int) {
        bytes += more
        peak = max(peak, bytes)
    }
}

extension Planish {
    @Suite struct CacheTests {
        @Test func theSecondLoadIsFiftyTimesFasterThanTheFirst() async throws {
            let cache = ModelCache(byteLimit: 1 << 30, warmUp: ModelCache.warmUp(runs: 1))
            let one = try Case.of("Gesture")[0]
            let load: @Sendable () async throws -> Void = {
                let source = try Gesture.source()
                try await cache.withModel(source) { _ in }
            }
            let first = try await seconds(load)
            var second = Double.infinity
            for _ in 0..<5 { second = min(second, try await seconds(load)) }
            #expect(first >= 50 * second, "\(first) s, then \(second) s")
            let result = try await cache.withModel(Gesture.source()) { try await $0.predict(one.given()) }
            #expect(try result == one.expected())
            #expect(await cache.statistics.loads == 1)
            await cache.removeAll()
        }

        @Test func allWhoAskAtOnceShareOneLoad() async throws {
            let ledger = Ledger()
            let cache = ModelCache(byteLimit: 100)
            let source = ModelCache.Source(key: "a", bytes: 10) {
                try await Task.sleep(for: .milliseconds(20))
                return await Weight(10, ledger)
            }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<64 { group.addTask { try await cache.withModel(source) { _ in } } }
                try await group.waitForAll()
            }
            let statistics = await cache.statistics
            #expect((statistics.hits, statistics.loads, statistics.peakBytes) == (63, 1, 10))
            #expect(await ledger.bytes == 10)
        }

        @Test(.timeLimit(.minutes(1))) func bytesStayWithinTheLimitUnderAnyWorkload() async throws {
            let ledger = Ledger()
            let cache = ModelCache(byteLimit: 1000)
            await withTaskGroup(of: Void.self) { group in
                for worker in 0..<16 {
                    group.addTask {
                        var chance = Chance(state: UInt64(worker))
                        for _ in 0..<200 {
                            let number = Int.random(in: 0..<40, using: &chance)
                            let bytes = 20 + 17 * number
                            let fails = Int.random(in: 0..<25, using: &chance) == 0
                            let source = ModelCache.Source(key: "\(number)", bytes: bytes) {
                                if fails { throw InferenceError.evaluation("load") }
                                return await Weight(bytes, ledger)
                            }
                            try? await cache.withModel(source) { _ in await Task.yield() }
                            if Int.random(in: 0..<100, using: &chance) == 0 { await cache.handle(.warning) }
                        }
                    }
                }
            }
            #expect(await ledger.peak <= 1000)
            #expect(await ledger.peak > 500)
            let statistics = await cache.statistics
            #expect(statistics.evictions > 100)
            #expect(statistics.hits > 100)
            #expect(statistics.peakBytes <= 1000)
            await cache.handle(.critical)
            try await eventually { await ledger.bytes == 0 }
            #expect(await cache.residentBytes == 0)
        }

        @Test func theLeastRecentlyUsedGoesFirstAndNoneInUse() async throws {
            let ledger = Ledger()
            let cache = ModelCache(byteLimit: 30)
            func source(_ key: String) -> ModelCache.Source {
                .init(key: key, bytes: 10) { await Weight(10, ledger) }
            }
            for key in ["a", "b", "c", "a"] { try await cache.withModel(source(key)) { _ in } }
            try await cache.withModel(source("d")) { _ in }
            #expect(await cache.contains("a"))
            #expect(await !cache.contains("b"))
            let inner = source("e")
            try await cache.withModel(source("c")) { _ in
                await cache.handle(.critical)
                #expect(await cache.contains("c"))
                try await cache.withModel(inner) { _ in }
            }
            await #expect(throws: InferenceError.modelTooLarge(bytes: 31, limit: 30)) {
                try await cache.withModel(.init(key: "x", bytes: 31) { await Weight(31, ledger) }) { _ in }
            }
        }

        @Test func whoWaitsForRoomCanBeCancelled() async throws {
            let ledger = Ledger()
            let cache = ModelCache(byteLimit: 10)
            try await cache.withModel(.init(key: "a", bytes: 10) { await Weight(10, ledger) }) { _ in
                let waiting = Task {
                    try await cache.withModel(.init(key: "b", bytes: 10) { await Weight(10, ledger) }) { _ in }
                }
                try await Task.sleep(for: .milliseconds(20))
                waiting.cancel()
                await #expect(throws: CancellationError.self) { try await waiting.value }
            }
            #expect(await ledger.peak == 10)
        }

        @Test func aLoadThatFailsIsTriedAgain() async throws {
            let ledger = Ledger()
            let cache = ModelCache(byteLimit: 30)
            let failing = ModelCache.Source(key: "a", bytes: 30) { throw InferenceError.evaluation("once") }
            await #expect(throws: InferenceError.evaluation("once")) { try await cache.withModel(failing) { _ in } }
            try await cache.withModel(.init(key: "a", bytes: 30) { await Weight(30, ledger) }) { _ in }
            #expect(await cache.statistics.failures == 1)
            let cold = ModelCache(byteLimit: 30) { _ in throw InferenceError.evaluation("warm-up") }
            await #expect(throws: InferenceError.evaluation("warm-up")) {
                try await cold.withModel(.init(key: "a", bytes: 30) { await Weight(30, ledger) }) { _ in }
            }
            #expect(await ledger.bytes == 30)
        }

        @Test func compiledModelsAreMadeOnceForEachContent() async throws {
            let folder = try temporaryFolder()
            defer { try? FileManager.default.removeItem(at: folder) }
            let compilations = Ledger()
            let compile: @Sendable (URL) async throws -> URL = { package in
                await compilations.add(1)
                let out = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
                try FileManager.default.copyItem(at: package, to: out)
                return out
            }
            let store = CompiledModelStore(folder: folder.appendingPathComponent("compiled"))
            let hash = try ContentHash.of(package: package(Gesture.self))
            try await withThrowingTaskGroup(of: URL.self) { group in
                for _ in 0..<8 {
                    group.addTask { try await store.outcome(for: package(Gesture.self), compile: compile) }
                }
                for try await place in group { #expect(place.lastPathComponent == "\(hash).mlmodelc") }
            }
            #expect(await compilations.bytes == 1)
            let later = CompiledModelStore(folder: folder.appendingPathComponent("compiled"))
            _ = try await later.outcome(for: package(Gesture.self), compile: compile)
            #expect(await compilations.bytes == 1)
            await #expect(throws: InferenceError.self) {
                try await later.outcome(for: package(Speech.self)) { _ in throw InferenceError.evaluation("no") }
            }
            try await later.keepOnly([])
            _ = try await later.outcome(for: package(Gesture.self), compile: compile)
            #expect(await compilations.bytes == 2)
        }
    }
}
