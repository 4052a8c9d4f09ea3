import Foundation

/// Sends each user to one of several variants of a model, always the same, and falls back when a variant does worse.
///
/// Who gets which variant follows from the hash of the experiment's name and the user's alone, on every device. The
/// first variant is the control: what all get once a guardrail has closed another.
public actor ABRouter {
    public struct Variant: Sendable {
        public let name: String
        /// How many users it gets, in relation to the others'.
        public let weight: Double
        public let engine: any InferenceEngine

        public init(name: String, weight: Double = 1, engine: any InferenceEngine) {
            self.name = name
            self.weight = weight
            self.engine = engine
        }
    }

    /// When a variant is closed: once it has been used enough, and fails or takes too long too often.
    public struct Guardrail: Sendable {
        /// How many of the latest calls are looked at; none is closed before it has had as many.
        public var window = 100
        /// The share of failed calls, beyond the control's, that closes it.
        public var excessFailures = 0.05
        /// The p90 of its time in relation to the control's that closes it.
        public var slowdown = 2.0

        public init() {}
    }

    /// That a user met a variant: what an analysis needs beside its metric.
    public struct Exposure: Sendable, Codable, Equatable {
        public let experiment: String
        public let user: String
        public let variant: String
        /// Whether the user got it in place of another that is closed.
        public let fallback: Bool
        public let time: Date
    }

    /// That a variant was closed, and why.
    public struct Closure: Sendable, Codable, Equatable {
        public let variant: String
        public let reason: String
    }

    private struct Record {
        var calls: [(failed: Bool, seconds: Double)] = []
        var place = 0

        mutating func add(_ failed: Bool, _ seconds: Double, _ window: Int) {
            if calls.count < window {
                calls.append((failed, seconds))
            } else {
                calls[place] = (failed, seconds)
                place = (place + 1) % window
            }
        }

        var failures: Double { Double(calls.count { $0.failed }) / Double(max(calls.count, 1)) }

        var p90: Double {
            let times = calls.filter { !$0.failed }.map(\.seconds).sorted()
            return times.isEmpty ? 0 : times[min(times.count - 1, times.count * 9 / 10)]
        }
    }

    public nonisolated let experiment: String
    public nonisolated let variants: [Variant]
    private let guardrail: Guardrail
    private let log: @Sendable (Exposure) -> Void
    private var records: [String: Record] = [:]
    private var exposed: Set<String> = []
    private let mostExposed: Int
    public private(set) var closures: [Closure] = []

    /// - Parameters:
    ///   - variants: the control first; names must differ and weights be positive.
    ///   - remembered: how many users' exposures are remembered, so as not to be logged again.
    ///   - log: gets each exposure once, as long as it is remembered.
    public init(
        experiment: String, variants: [Variant], guardrail: Guardrail = Guardrail(), remembered: Int = 100_000,
        log: @escaping @Sendable (Exposure) -> Void
    ) throws {
        guard !variants.isEmpty, variants.allSatisfy({ $0.weight > 0 && $0.weight.isFinite }),
            Set(variants.map(\.name)).count == variants.count
        else { throw InferenceError.unsupported("variants need different names and positive weights") }
        self.experiment = experiment
        self.variants = variants
        self.guardrail = guardrail
        self.log = log
        mostExposed = remembered
    }

    /// The variant that belongs to a user, whether it is closed or not.
    public nonisolated func assignment(of user: String) -> Variant {
        let hash = ContentHash.sha256(Data("\(experiment)\0\(user)".utf8))
        let number = hash.prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        // 53 bits fill a Double exactly.
        var point = Double(number >> 11) / Double(UInt64(1) << 53) * variants.reduce(0) { $0 + $1.weight }
        for variant in variants {
            if point < variant.weight { return variant }
            point -= variant.weight
        }
        return variants[variants.count - 1]
    }

    /// Predicts with the user's variant, with the control where that is closed or fails at this.
    public func predict(_ inputs: Features, user: String) async throws -> Features {
        let control = variants[0]
        let assigned = assignment(of: user)
        let chosen = isClosed(assigned.name) ? control : assigned
        expose(user, chosen.name, fallback: chosen.name != assigned.name)
        do {
            return try await call(chosen, inputs)
        } catch let error as CancellationError {
            throw error
        } catch  where chosen.name != control.name {
            expose(user, control.name, fallback: true)
            return try await call(control, inputs)
        }
    }

    public func isClosed(_ variant: String) -> Bool { closures.contains { $0.variant == variant } }

    private func call(_ variant: Variant, _ inputs: Features) async throws -> Features {
        let start = ContinuousClock.now
        do {
            let result = try await variant.engine.predict(inputs)
            note(variant.name, failed: false, (ContinuousClock.now - start).seconds)
            return result
        } catch {
            if !(error is CancellationError) {
                note(variant.name, failed: true, (ContinuousClock.now - start).seconds)
            }
            throw error
        }
    }

    private func note(_ name: String, failed: Bool, _ seconds: Double) {
        records[name, default: Record()].add(failed, seconds, guardrail.window)
        guard name != variants[0].name, !isClosed(name), let own = records[name],
            own.calls.count >= guardrail.window
        else { return }
        let control = records[variants[0].name] ?? Record()
        if own.failures > control.failures + guardrail.excessFailures {
            closures.append(
                Closure(variant: name, reason: "\(own.failures) of calls fail, \(control.failures) of the control's"))
        } else if control.calls.count >= guardrail.window, own.p90 > control.p90 * guardrail.slowdown {
            closures.append(Closure(variant: name, reason: "p90 is \(own.p90) s, the control's \(control.p90) s"))
        }
    }

    private func expose(_ user: String, _ variant: String, fallback: Bool) {
        guard exposed.insert("\(variant)\0\(user)").inserted else { return }
        if exposed.count > mostExposed { exposed = [] }
        log(
            Exposure(
                experiment: experiment, user: user, variant: variant, fallback: fallback, time: Date()))
    }
}
