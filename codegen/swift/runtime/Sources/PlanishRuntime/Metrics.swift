import Foundation

#if canImport(os)
import os
#endif

/// Measures of predictions: how long they took, waited, and how many shared a call. Memory does not grow with them.
public final class Metrics: Sendable {
    /// What is measured.
    public enum Measure: String, Sendable, CaseIterable, Codable {
        /// From request to result, in seconds.
        case latency
        /// From request to the start of its prediction, in seconds.
        case queue
        /// The prediction alone, in seconds.
        case prediction
        /// How many requests shared a call.
        case batchSize
    }

    /// Figures of one measure.
    public struct Summary: Sendable, Codable, Equatable {
        public let count: Int
        public let mean: Double
        public let minimum: Double
        public let p50: Double
        public let p90: Double
        public let p99: Double
        public let maximum: Double

        public init(_ histogram: Histogram) {
            count = histogram.count
            mean = histogram.mean
            minimum = histogram.count == 0 ? 0 : histogram.minimum
            p50 = histogram.percentile(0.5)
            p90 = histogram.percentile(0.9)
            p99 = histogram.percentile(0.99)
            maximum = histogram.maximum
        }
    }

    private let state = Locked<(histograms: [Measure: Histogram], failures: [String: Int])>(([:], [:]))
    #if canImport(os)
    private let signposter: OSSignposter
    #endif

    /// - Parameter name: the category under which Instruments shows the signposts.
    public init(name: String = "model") {
        #if canImport(os)
        signposter = OSSignposter(subsystem: "planish", category: name)
        #endif
    }

    public func record(_ value: Double, as measure: Measure) {
        state.withLock { $0.histograms[measure, default: Histogram()].record(value) }
    }

    /// Counts a failure by its kind.
    public func record(failure: any Error) {
        let text = failure is CancellationError ? "cancelled" : String(describing: failure)
        let kind = String(text.prefix(80))
        state.withLock { state in
            // Kinds come from messages; a bound keeps odd ones from filling memory.
            if state.failures[kind] != nil || state.failures.count < 64 { state.failures[kind, default: 0] += 1 }
        }
    }

    public func summary(of measure: Measure) -> Summary {
        Summary(state.withLock { $0.histograms[measure] ?? Histogram() })
    }

    public var failures: [String: Int] { state.withLock { $0.failures } }

    public func reset() { state.withLock { $0 = ([:], [:]) } }

    /// Measures a prediction, with a signpost around it on Apple's systems.
    public func measure<Result>(
        _ measure: Measure, _ body: () async throws -> Result
    ) async rethrows -> Result {
        #if canImport(os)
        // Predictions overlap, and the default identifier is for intervals that do not.
        let interval = signposter.beginInterval("prediction", id: signposter.makeSignpostID())
        defer { signposter.endInterval("prediction", interval) }
        #endif
        let start = ContinuousClock.now
        let result = try await body()
        record((ContinuousClock.now - start).seconds, as: measure)
        return result
    }

    /// All figures as JSON, keys in order.
    public func json() throws -> String {
        var all: [String: Summary] = [:]
        for measure in Measure.allCases { all[measure.rawValue] = summary(of: measure) }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
        return String(decoding: try encoder.encode(all), as: UTF8.self)
    }
}

extension Duration {
    public var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) * 1e-18
    }
}
