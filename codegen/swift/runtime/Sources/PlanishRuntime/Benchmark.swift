import Foundation

/// Measures a model as an app meets it: load, first call, warm calls, calls of several rows.
public struct Benchmark: Sendable {
    public struct Report: Sendable, Codable {
        public struct Rows: Sendable, Codable {
            public let rows: Int
            public let secondsPerCall: Double
            public let rowsPerSecond: Double
        }

        public let model: String
        public let engine: String
        public let units: String?
        public let device: DeviceCapabilities
        /// From nothing to a model that is ready.
        public let coldLoad: Double
        /// The first call after that.
        public let firstPrediction: Double
        public let warm: Metrics.Summary
        public let predictionsPerSecond: Double
        /// Empty where the model has one row only.
        public let batches: [Rows]
    }

    public var iterations = 100
    /// Rows of calls to measure, as far as the model allows them.
    public var batches = [1, 2, 4, 8, 16, 32]

    public init() {}

    /// - Parameters:
    ///   - engine: what to call it in the report, with the units that it ran on, if known.
    ///   - load: makes the engine anew; it is shut down at the end.
    public func run(
        engine name: String, units: String? = nil, load: @Sendable () async throws -> any InferenceEngine
    ) async throws -> Report {
        var start = ContinuousClock.now
        let engine = try await load()
        let coldLoad = (ContinuousClock.now - start).seconds
        let inputs = try engine.description.zeros()
        start = .now
        _ = try await engine.predict(inputs)
        let first = (ContinuousClock.now - start).seconds
        let metrics = Metrics()
        for _ in 0..<iterations { _ = try await metrics.measure(.prediction) { try await engine.predict(inputs) } }
        let warm = metrics.summary(of: .prediction)
        let rows = try await sweep(engine, inputs)
        await engine.shutdown()
        return Report(
            model: engine.description.name, engine: name, units: units, device: .current, coldLoad: coldLoad,
            firstPrediction: first, warm: warm, predictionsPerSecond: warm.mean > 0 ? 1 / warm.mean : 0, batches: rows)
    }

    private func sweep(_ engine: any InferenceEngine, _ inputs: Features) async throws -> [Report.Rows] {
        guard let stacker = RowStacker(engine.description) else { return [] }
        var out: [Report.Rows] = []
        for size in batches where size <= stacker.most && stacker.size(for: size) == size {
            let batch = Array(repeating: inputs, count: size)
            let times = max(3, iterations / size)
            // The first call of a shape prepares the engine for it.
            for result in await engine.predict(batch: batch) { _ = try result.get() }
            let start = ContinuousClock.now
            for _ in 0..<times {
                for result in await engine.predict(batch: batch) { _ = try result.get() }
            }
            let seconds = (ContinuousClock.now - start).seconds / Double(times)
            out.append(.init(rows: size, secondsPerCall: seconds, rowsPerSecond: Double(size) / seconds))
        }
        return out
    }
}
