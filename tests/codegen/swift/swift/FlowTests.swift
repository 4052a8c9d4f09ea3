import Foundation
import Models
import PlanishRuntime
import Testing

private struct Numbers: AsyncSequence, Sendable {
    let count: Int
    struct Iterator: AsyncIteratorProtocol {
        var position = 0
        let count: Int
        mutating func next() async throws -> Int? {
            if position == count { return nil }
            position += 1
            return position - 1
        }
    }
    func makeAsyncIterator() -> Iterator { Iterator(count: count) }
}

private actor Collected<Element: Sendable> {
    private(set) var all: [Element] = []
    func add(_ one: Element) { all.append(one) }
}

extension Planish {
    @Suite struct FlowTests {
        @Test func aPipelineKeepsOrderAndIsAsFastAsItsSlowestStage() async throws {
            let engine = try await Shared.engines.engine(Direction.self)
            let cases = try Case.of("Direction")
            let slowest = 0.02
            let collected = Collected<Bool>()
            let pipeline = Pipeline<Int, Features, (Int, Features), Bool>(
                preprocess: { number in
                    try await Task.sleep(for: .seconds(slowest))
                    return try cases[number % cases.count].given()
                },
                predict: { (0, try await engine.predict($0)) },
                postprocess: { _, output in
                    try await Task.sleep(for: .seconds(slowest / 2))
                    return try cases.contains { try $0.expected() == output }
                })
            let count = 40
            let taken = try await seconds {
                try await pipeline.run(Numbers(count: count)) { await collected.add($0) }
            }
            #expect(await collected.all == Array(repeating: true, count: count))
            // One element more than the count passes through all stages.
            #expect(Double(count) / taken >= 0.5 / slowest, "\(taken) s")
        }

        @Test func aPipelineHoldsBackWhoeverIsAhead() async throws {
            let ahead = Collected<Int>()
            let pipeline = Pipeline<Int, Int, Int, Int>(
                depth: 1,
                preprocess: {
                    await ahead.add($0)
                    return $0
                }, predict: { $0 }, postprocess: { $0 })
            let seen = Collected<Int>()
            try await pipeline.run(Numbers(count: 50)) { number in
                await seen.add(number)
                try await Task.sleep(for: .milliseconds(1))
                // Two wait behind each of three stages and the consumer at most.
                #expect(await ahead.all.count <= number + 8)
            }
            #expect(await seen.all == Array(0..<50))
        }

        @Test func aFailureEndsAPipelineAndSaysWhere() async throws {
            let pipeline = Pipeline<Int, Int, Int, Int>(
                preprocess: { $0 },
                predict: { if $0 == 7 { throw InferenceError.evaluation("seven") } else { return $0 } },
                postprocess: { $0 })
            let error = await #expect(throws: Pipeline<Int, Int, Int, Int>.Failure.self) {
                try await pipeline.run(Numbers(count: 1000)) { _ in }
            }
            #expect(error?.stage == .predict)
            #expect(error?.element == 7)
            let endless = Pipeline<Int, Int, Int, Int>(
                preprocess: { $0 }, predict: { $0 }, postprocess: { $0 })
            let task = Task {
                try await endless.run(Numbers(count: .max)) { _ in try await Task.sleep(for: .milliseconds(1)) }
            }
            try await Task.sleep(for: .milliseconds(20))
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
        }

        @Test func usersKeepTheirVariant() async throws {
            let engine = try await Shared.engines.engine(Gesture.self)
            let exposures = Locker<[ABRouter.Exposure]>([])
            let router = try ABRouter(
                experiment: "e",
                variants: [.init(name: "a", weight: 3, engine: engine), .init(name: "b", engine: engine)]
            ) { exposure in exposures.with { $0.append(exposure) } }
            let names = (0..<4000).map { router.assignment(of: "user \($0)").name }
            #expect(names == (0..<4000).map { router.assignment(of: "user \($0)").name })
            #expect(abs(Double(names.count { $0 == "b" }) / 4000 - 0.25) < 0.03)
            // int.from_bytes(sha256(b"e\0user 0").digest()[:8]) / 2**64 * 4 and so on, in Python.
            #expect(names[..<8] == ["a", "a", "b", "a", "b", "b", "a", "a"])
            let one = try Case.of("Gesture")[0]
            for _ in 0..<3 { #expect(try await router.predict(one.given(), user: "user 2") == one.expected()) }
            #expect(exposures.with { $0.map(\.variant) } == ["b"])
            #expect(throws: InferenceError.self) {
                try ABRouter(experiment: "e", variants: [.init(name: "a", weight: 0, engine: engine)]) { _ in }
            }
        }

        @Test func aVariantThatFailsOrIsSlowIsClosed() async throws {
            let good = try await Shared.engines.engine(Gesture.self)
            let one = try Case.of("Gesture")[0]
            for fails in [true, false] {
                let bad = Wrapped(inner: good) { _ in
                    if fails { throw InferenceError.evaluation("b") }
                    try await Task.sleep(for: .milliseconds(5))
                }
                var guardrail = ABRouter.Guardrail()
                guardrail.window = 20
                guardrail.slowdown = 3
                let exposures = Locker<[ABRouter.Exposure]>([])
                let router = try ABRouter(
                    experiment: "e", variants: [.init(name: "a", engine: good), .init(name: "b", engine: bad)],
                    guardrail: guardrail
                ) { exposure in exposures.with { $0.append(exposure) } }
                // Nobody notices: what a variant fails at, the control does.
                for i in 0..<150 {
                    #expect(try await router.predict(one.given(), user: "user \(i)") == one.expected())
                }
                #expect(await router.isClosed("b"))
                #expect(await !router.isClosed("a"))
                #expect(exposures.with { $0.contains { $0.fallback } })
            }
        }

        @Test func aBenchmarkMeasuresWhatThereIs() async throws {
            let file = try temporaryFolder().appendingPathComponent("figures.json")
            let code = await BenchmarkCommand.run(
                [Gesture.self, Speech.self],
                arguments: ["Gesture", "--iterations", "20", "--batches", "1,4,16", "--json", file.path])
            #expect(code == 0)
            let reports = try JSONDecoder().decode([Benchmark.Report].self, from: Data(contentsOf: file))
            #expect(reports.map(\.model) == ["Gesture"])
            #expect(reports[0].batches.map(\.rows) == [1, 4, 16])
            #expect(reports[0].coldLoad > reports[0].warm.p50)
            #expect(reports[0].warm.count == 20)
            #expect(await BenchmarkCommand.run([Gesture.self], arguments: ["--iterations", "none"]) == 2)
            #expect(await BenchmarkCommand.run([Gesture.self], arguments: ["Other"]) == 2)
        }
    }
}

/// A value behind a lock.
final class Locker<Value>: @unchecked Sendable {
    private let lock = NSLock()
    private var value: Value

    init(_ value: Value) { self.value = value }

    func with<Result>(_ body: (inout Value) throws -> Result) rethrows -> Result {
        lock.lock()
        defer { lock.unlock() }
        return try body(&value)
    }
}
