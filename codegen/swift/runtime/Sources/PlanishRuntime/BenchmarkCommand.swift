import Foundation

/// The command line of a generated package's benchmark.
public struct BenchmarkCommand {
    public static let usage = """
        usage: benchmark [MODEL]… [--iterations N] [--batches 1,4,8] [--units all,cpuOnly] [--json FILE]
          --units     all, cpuAndNeuralEngine, cpuAndGPU, cpuOnly: each is measured; only where there is Core ML
          --json      where to write the figures
        """

    private struct Mistake: Error { let text: String }

    private struct Options {
        var models: [String] = []
        var benchmark = Benchmark()
        var units: [ComputeUnits] = [.all]
        var json: String?
    }

    /// Measures the models that the arguments name, all where they name none.
    ///
    /// - Returns: the exit code: 2 where the arguments are to blame, 1 where a model fails.
    public static func run(_ models: [any TypedModel.Type], arguments: [String]) async -> Int32 {
        let options: Options
        do {
            options = try parse(arguments, models.map { $0.modelDescription.name })
        } catch {
            complain((error as? Mistake)?.text ?? "\(error)")
            complain(usage)
            return 2
        }
        var reports: [Benchmark.Report] = []
        for model in models {
            let name = model.modelDescription.name
            if !options.models.isEmpty, !options.models.contains(name) { continue }
            for units in options.units {
                do {
                    let report = try await measure(model, units, options.benchmark)
                    reports.append(report)
                    print(lines(report))
                } catch {
                    complain("\(name) on \(units.rawValue): \(error)")
                    return 1
                }
            }
        }
        guard let json = options.json else { return 0 }
        do {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            try encoder.encode(reports).write(to: URL(fileURLWithPath: json))
            return 0
        } catch {
            complain("cannot write \(json): \(error)")
            return 2
        }
    }

    private static func measure(
        _ model: any TypedModel.Type, _ units: ComputeUnits, _ benchmark: Benchmark
    ) async throws -> Benchmark.Report {
        #if canImport(CoreML)
        let engine = "Core ML"
        #else
        let engine = "planish serve"
        #endif
        #if canImport(CoreML)
        let said: String? = units.rawValue
        #else
        let said: String? = nil
        #endif
        return try await benchmark.run(engine: engine, units: said) {
            try await model.loadEngine(wished: units).engine
        }
    }

    private static func parse(_ arguments: [String], _ known: [String]) throws -> Options {
        var options = Options()
        var rest = arguments[...]
        func value(of option: String) throws -> String {
            guard let value = rest.popFirst() else { throw Mistake(text: "\(option) needs a value") }
            return value
        }
        func number(_ text: String) throws -> Int {
            guard let number = Int(text), number > 0 else { throw Mistake(text: "'\(text)' is no number above 0") }
            return number
        }
        while let argument = rest.popFirst() {
            switch argument {
            case "--iterations": options.benchmark.iterations = try number(value(of: argument))
            case "--batches":
                options.benchmark.batches = try value(of: argument).split(separator: ",").map { try number(String($0)) }
            case "--units":
                options.units = try value(of: argument).split(separator: ",").map {
                    guard let units = ComputeUnits(rawValue: String($0)) else {
                        throw Mistake(text: "there are no units '\($0)'")
                    }
                    return units
                }
            case "--json": options.json = try value(of: argument)
            default:
                guard known.contains(argument) else { throw Mistake(text: "there is no model '\(argument)'") }
                options.models.append(argument)
            }
        }
        return options
    }

    private static func lines(_ report: Benchmark.Report) -> String {
        func milliseconds(_ seconds: Double) -> String { String(format: "%.3f ms", seconds * 1000) }
        var out = """
            \(report.model) with \(report.engine)\(report.units.map { ", \($0)" } ?? "")
              load \(milliseconds(report.coldLoad)), first call \(milliseconds(report.firstPrediction))
              warm p50 \(milliseconds(report.warm.p50)), p90 \(milliseconds(report.warm.p90)), \
            p99 \(milliseconds(report.warm.p99)), \(Int(report.predictionsPerSecond)) a second
            """
        for rows in report.batches {
            out += "\n  \(rows.rows) rows \(milliseconds(rows.secondsPerCall)) a call, "
            out += "\(Int(rows.rowsPerSecond)) rows a second"
        }
        return out
    }
}

private func complain(_ text: String) { FileHandle.standardError.write(Data("\(text)\n".utf8)) }
