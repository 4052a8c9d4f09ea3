// Measures of the Swift runtime on real models through `planish serve`; benchmarks/swift_runtime.py builds and runs it.
import Foundation
import Models
import PlanishRuntime

let callers = 64

func seconds(_ body: () async throws -> Void) async rethrows -> Double {
    let start = ContinuousClock.now
    try await body()
    return (ContinuousClock.now - start).seconds
}

/// Inputs that differ, of the shapes to assume.
func inputs(_ description: ModelDescription, _ number: Int) throws -> Features {
    var out = try description.zeros()
    for (name, tensor) in out.tensors where tensor.elementType == .float32 {
        let values = (0..<tensor.count).map { Float(sin(Double($0 * 7 + number))) }
        out.tensors[name] = try Tensor(values, shape: tensor.shape)
    }
    return out
}

/// Requests per second when all callers ask one after the other.
func throughput(_ requests: Int, _ predict: @escaping @Sendable (Int) async throws -> Void) async throws -> Double {
    let taken = try await seconds {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for caller in 0..<callers {
                group.addTask { for i in stride(from: caller, to: requests, by: callers) { try await predict(i) } }
            }
            try await group.waitForAll()
        }
    }
    return Double(requests) / taken
}

/// Unbatched, batched, and how long requests wait for their call.
func batching<Model: TypedModel>(_ model: Model.Type, requests: Int, largest: Int) async throws {
    let engine = try await Model.loadEngine().engine
    let given = try (0..<callers).map { try inputs(Model.modelDescription, $0) }
    var expected: [Features] = []
    for one in given { expected.append(try await engine.predict(one)) }
    let right = expected
    for result in await engine.predict(batch: Array(given.prefix(largest))) { _ = try result.get() }
    let alone = try await throughput(requests) { _ = try await engine.predict(given[$0 % callers]) }

    var configuration = DynamicBatcher.Configuration()
    configuration.maximumBatch = largest
    configuration.maximumDelay = .milliseconds(2)
    let batcher = try DynamicBatcher(engine, configuration: configuration)
    // Every number of rows prepares the server once.
    _ = try await throughput(requests / 4) { _ = try await batcher.predict(given[$0 % callers]) }
    batcher.metrics.reset()
    let different = Counter()
    let together = try await throughput(requests) {
        if try await batcher.predict(given[$0 % callers]) != right[$0 % callers] { await different.add() }
    }
    let queue = batcher.metrics.summary(of: .queue)
    let call = batcher.metrics.summary(of: .prediction)
    // With more callers than a call has rows, calls of others come first.
    let calls = (callers + largest - 1) / largest
    let bound = configuration.maximumDelay.seconds + Double(calls) * call.p99
    let name = Model.modelDescription.name
    print("batching \(name) alone \(alone) together \(together) mean \(batcher.metrics.summary(of: .batchSize).mean)")
    print("queue \(name) p99 \(queue.p99) bound \(bound) different \(await different.value) of \(requests)")
    await engine.shutdown()
}

actor Counter {
    private(set) var value = 0
    func add() { value += 1 }
}

struct Numbers: AsyncSequence, Sendable {
    let count: Int
    struct Iterator: AsyncIteratorProtocol {
        var place = 0
        let count: Int
        mutating func next() async throws -> Int? {
            place += 1
            return place > count ? nil : place - 1
        }
    }
    func makeAsyncIterator() -> Iterator { Iterator(count: count) }
}

/// A pipeline against its slowest stage, timed in the same run; preparing and finishing take half as long as a call.
func pipeline() async throws {
    let engine = try await Direction.loadEngine().engine
    let one = try inputs(Direction.modelDescription, 1)
    let count = 300
    let alone = try await seconds { for _ in 0..<50 { _ = try await engine.predict(one) } } / 50
    let beside = Duration.seconds(alone / 2)
    let stages = [Metrics(), Metrics(), Metrics()]
    let line = Pipeline<Int, Features, Features, Void>(
        preprocess: { _ in
            try await stages[0].measure(.latency) { try await Task.sleep(for: beside) }
            return one
        },
        predict: { given in try await stages[1].measure(.latency) { try await engine.predict(given) } },
        postprocess: { _ in try await stages[2].measure(.latency) { try await Task.sleep(for: beside) } })
    let taken = try await seconds { try await line.run(Numbers(count: count)) { _ in } } / Double(count)
    let slowest = stages.map { $0.summary(of: .latency).mean }.max() ?? 0
    print("pipeline slowest \(slowest) element \(taken)")
    await engine.shutdown()
}

func cache() async throws {
    let cache = ModelCache(byteLimit: 1 << 30, warmUp: ModelCache.warmUp(runs: 1))
    let first = try await seconds { try await cache.withModel(try Direction.source()) { _ in } }
    var later: [Double] = []
    for _ in 0..<100 {
        later.append(try await seconds { try await cache.withModel(try Direction.source()) { _ in } })
    }
    print("cache first \(first) second \(later[0]) median \(later.sorted()[50])")
    await cache.removeAll()
}

final class Weight: InferenceEngine {
    let description = Gesture.modelDescription
    func predict(_ inputs: Features) async throws -> Features { inputs }
}

/// 100,000 uses of 60 models of random sizes by 32 tasks.
func eviction() async throws {
    let cache = ModelCache(byteLimit: 1000)
    try await withThrowingTaskGroup(of: Void.self) { group in
        for _ in 0..<32 {
            group.addTask {
                for _ in 0..<3125 {
                    let number = Int.random(in: 0..<60)
                    let source = ModelCache.Source(key: "\(number)", bytes: 20 + 13 * number) { Weight() }
                    try await cache.withModel(source) { _ in await Task.yield() }
                }
            }
        }
        try await group.waitForAll()
    }
    let seen = await cache.statistics
    print("eviction uses 100000 hits \(seen.hits) evictions \(seen.evictions) peak \(seen.peakBytes) limit 1000")
}

try await batching(Gesture.self, requests: 20_000, largest: 64)
try await batching(Crop.self, requests: 10_000, largest: 16)
try await batching(Direction.self, requests: 1_000, largest: 8)
try await pipeline()
try await cache()
try await eviction()
