import Foundation
import Models
import PlanishRuntime
import Testing

extension Planish {
    @Suite struct StormTests {
        private enum Outcome: Hashable {
            case right, wrong, cancelled, late, lost, full
            case other(String)
        }

        /// 10,000 requests of 64 callers, some cancelled, some with deadlines, while the process is killed again and
        /// again: each is answered once, rightly or with its reason, and memory stays.
        @Test(.timeLimit(.minutes(2))) func everyRequestIsAnsweredOnce() async throws {
            var configuration = ProcessEngine.Configuration()
            configuration.restarts = 1000
            let engine = try await ProcessEngine(package: package(Gesture.self), configuration: configuration)
            var batching = DynamicBatcher.Configuration()
            batching.maximumBatch = 32
            batching.maximumDelay = .milliseconds(1)
            batching.capacity = 48
            let batcher = try DynamicBatcher(engine, configuration: batching)
            let cases = try Case.of("Gesture").map { (given: try $0.given(), expected: try $0.expected()) }
            let total = 10_000
            let callers = 64
            let before = try residentMegabytes()

            let chaos = Task {
                var kills = 0
                while !Task.isCancelled, kills < 4 {
                    try? await Task.sleep(for: .milliseconds(200))
                    if let process = await engine.processIdentifier, kill(process, SIGKILL) == 0 { kills += 1 }
                    // What follows must come through, too, before the next blow.
                    _ = try? await engine.predict(cases[0].given)
                }
                return kills
            }
            var outcomes: [Outcome: Int] = [:]
            await withTaskGroup(of: [Outcome].self) { group in
                for caller in 0..<callers {
                    group.addTask {
                        var chance = Chance(state: UInt64(caller))
                        var own: [Outcome] = []
                        for i in stride(from: caller, to: total, by: callers) {
                            own.append(await request(cases[i % cases.count], batcher, &chance))
                        }
                        return own
                    }
                }
                for await own in group { for outcome in own { outcomes[outcome, default: 0] += 1 } }
            }
            chaos.cancel()
            let kills = await chaos.value
            #expect(outcomes.values.reduce(0, +) == total)
            #expect(outcomes[.wrong] == nil)
            #expect(outcomes.keys.allSatisfy { if case .other = $0 { false } else { true } }, "\(outcomes)")
            #expect((outcomes[.right] ?? 0) > total / 2, "\(outcomes)")
            #expect(kills >= 2)
            #expect((outcomes[.lost] ?? 0) > 0, "\(outcomes)")
            #expect((outcomes[.cancelled] ?? 0) > 0, "\(outcomes)")
            #expect(await batcher.waitingCount == 0)
            #expect(try residentMegabytes() - before < 64)
            await batcher.close()
            await engine.shutdown()
        }

        private func request(
            _ one: (given: Features, expected: Features), _ batcher: DynamicBatcher, _ chance: inout Chance
        ) async -> Outcome {
            if Int.random(in: 0..<20, using: &chance) == 0 { try? await Task.sleep(for: .milliseconds(1)) }
            let hurried = Int.random(in: 0..<10, using: &chance) == 0
            let patience = Duration.microseconds(Int.random(in: 0..<4000, using: &chance))
            let deadline = hurried ? ContinuousClock.now + patience : nil
            let task = Task { try await batcher.predict(one.given, deadline: deadline) }
            if Int.random(in: 0..<10, using: &chance) == 0 {
                try? await Task.sleep(for: .microseconds(Int.random(in: 0..<3000, using: &chance)))
                task.cancel()
            }
            do {
                return try await task.value == one.expected ? .right : .wrong
            } catch is CancellationError {
                return .cancelled
            } catch InferenceError.deadlineExceeded {
                return .late
            } catch InferenceError.engineLost {
                return .lost
            } catch {
                return .other("\(error)")
            }
        }
    }
}
