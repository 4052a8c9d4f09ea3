import Foundation
import Models
import Testing

@testable import PlanishRuntime

extension Planish {
    @Suite struct BatcherTests {
        private func batcher<Model: TypedModel>(
            _ model: Model.Type, _ change: (inout DynamicBatcher.Configuration) -> Void = { _ in },
            before: @escaping @Sendable ([Features]) async throws -> Void = { _ in }
        ) async throws -> DynamicBatcher {
            var configuration = DynamicBatcher.Configuration()
            change(&configuration)
            let inner = try await Shared.engines.engine(model)
            return try DynamicBatcher(Wrapped(inner: inner, before: before), configuration: configuration)
        }

        @Test(arguments: [1, 3, 8]) func resultsAreThoseOfSingleCallsBitForBit(_ size: Int) async throws {
            // Sizes of 1, 4 and 8 are allowed: 3 is filled up.
            let batcher = try await batcher(Direction.self) {
                $0.maximumBatch = size
                $0.maximumDelay = .seconds(5)
            }
            let cases = try Case.of("Direction").prefix(size)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for one in cases {
                    group.addTask { try await hold(one) { try await batcher.predict($0) } }
                }
                try await group.waitForAll()
            }
            #expect(batcher.metrics.summary(of: .batchSize).maximum == Double(size))
            #expect(batcher.metrics.summary(of: .prediction).count == 1)
        }

        @Test func aModelWhoseRowsMayMixIsRefused() async throws {
            let engine = try await Shared.engines.engine(Spectrum.self)
            #expect(throws: InferenceError.rowsNotIndependent(model: "Spectrum")) { try DynamicBatcher(engine) }
        }

        /// As `planish serve` describes a model compiled with `--batch` whose rows round otherwise among others.
        @Test func aModelWhoseRowsRoundOtherwiseTogetherIsRefusedForThat() throws {
            struct Alone: InferenceEngine {
                let description: ModelDescription
                func predict(_ inputs: Features) async throws -> Features { inputs }
            }
            let whole = Gesture.modelDescription
            #expect(whole.rows != nil)
            let alone = ModelDescription(
                name: whole.name, kind: whole.kind, inputs: whole.inputs, outputs: whole.outputs, states: [], rows: nil,
                metadata: whole.metadata)
            let error = #expect(throws: InferenceError.self) { try DynamicBatcher(Alone(description: alone)) }
            #expect(error?.description.contains("the same to the bit") == true)
        }

        @Test func aBadRequestHarmsNoOther() async throws {
            let batcher = try await batcher(Gesture.self) { $0.maximumDelay = .milliseconds(50) }
            let one = try Case.of("Gesture")[0]
            async let good = batcher.predict(one.given())
            await #expect(throws: InferenceError.self) {
                try await batcher.predict(Features(["input": Tensor([1] as [Float], shape: [1, 1])]))
            }
            #expect(try await good == one.expected())
        }

        @Test func aCallThatFailsIsRepeatedRowByRow() async throws {
            struct Picky: InferenceEngine {
                let inner: any InferenceEngine
                var description: ModelDescription { inner.description }

                func predict(_ inputs: Features) async throws -> Features {
                    let values: [Float] = try inputs.tensor("input").scalars()
                    if values.contains(13) { throw InferenceError.evaluation("13") }
                    return try await inner.predict(inputs)
                }
            }
            var configuration = DynamicBatcher.Configuration()
            configuration.maximumBatch = 4
            configuration.maximumDelay = .seconds(5)
            let engine = Picky(inner: try await Shared.engines.engine(Gesture.self))
            let batcher = try DynamicBatcher(engine, configuration: configuration)
            let cases = try Case.of("Gesture")
            let bad = Features(["input": try Tensor([Float](repeating: 13, count: 42), shape: [1, 42])])
            try await withThrowingTaskGroup(of: Void.self) { group in
                for one in cases[..<3] {
                    group.addTask { try await hold(one) { try await batcher.predict($0) } }
                }
                group.addTask {
                    _ = await #expect(throws: InferenceError.evaluation("13")) { try await batcher.predict(bad) }
                }
                try await group.waitForAll()
            }
        }

        @Test func requestsAreServedInTheOrderInWhichTheyCame() async throws {
            let served = Served()
            let batcher = try await batcher(Gesture.self) {
                $0.maximumBatch = 16
                $0.maximumDelay = .seconds(30)
            } before: {
                try await served.note($0)
            }
            // 100 requests queue up behind one another, whose calls are 16 at a time.
            await served.hold()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for i in 0..<100 {
                    var values = [Float](repeating: 0, count: 42)
                    values[0] = Float(i)
                    let given = Features(["input": try Tensor(values, shape: [1, 42])])
                    group.addTask { _ = try await batcher.predict(given) }
                    try await eventually { await batcher.waitingCount + (i >= 15 ? 16 : 0) == i + 1 }
                }
                await served.release()
                try await eventually { await served.order.count >= 96 }
                await batcher.close()
                try await group.waitForAll()
            }
            #expect(await served.order == (0..<100).map(Float.init))
        }

        @Test func deadlinesAndCancellationsAnswerAtOnce() async throws {
            let batcher = try await batcher(Gesture.self) { $0.maximumDelay = .seconds(30) }
            let given = try Case.of("Gesture")[0].given()
            let late = await seconds {
                await #expect(throws: InferenceError.deadlineExceeded) {
                    try await batcher.predict(given, deadline: .now + .milliseconds(20))
                }
            }
            #expect(late < 5)
            let task = Task { try await batcher.predict(given) }
            try await eventually { await batcher.waitingCount == 1 }
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
            #expect(await batcher.waitingCount == 0)
        }

        @Test func aFullQueueRefusesOrHoldsBack() async throws {
            let given = try Case.of("Gesture")[0].given()
            let strict = try await batcher(Gesture.self) {
                $0.capacity = 2
                $0.overflow = .reject
                $0.maximumDelay = .seconds(30)
            }
            let waiting = (0..<2).map { _ in Task { try await strict.predict(given) } }
            try await eventually { await strict.waitingCount == 2 }
            await #expect(throws: InferenceError.queueFull(capacity: 2)) { try await strict.predict(given) }
            await strict.close()
            for task in waiting { _ = try await task.value }
            await #expect(throws: InferenceError.closed) { try await strict.predict(given) }
            #expect(strict.metrics.failures.count == 2)

            let patient = try await batcher(Gesture.self) { $0.capacity = 2 }
            try await withThrowingTaskGroup(of: Features.self) { group in
                for _ in 0..<50 { group.addTask { try await patient.predict(given) } }
                for try await _ in group { #expect(await patient.waitingCount <= 2) }
            }
        }
    }
}

/// Which requests were served, in which order; calls can be held up.
private actor Served {
    private(set) var order: [Float] = []
    private var held: [CheckedContinuation<Void, Never>]?

    func hold() { held = [] }

    func release() {
        for one in held ?? [] { one.resume() }
        held = nil
    }

    func note(_ batch: [Features]) async throws {
        for one in batch { order.append((try one.tensor("input").scalars() as [Float])[0]) }
        if held != nil { await withCheckedContinuation { held?.append($0) } }
    }
}
