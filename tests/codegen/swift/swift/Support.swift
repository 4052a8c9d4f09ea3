import Foundation
import Models
import PlanishRuntime
import Testing

/// All tests, one after the other: many start processes and measure time.
@Suite(.serialized) enum Planish {}

/// Inputs for a model, and what it must give: computed in Python.
struct Case: Decodable {
    struct Array: Decodable {
        let dtype: String
        let shape: [Int]
        let data: String

        func tensor() throws -> Tensor {
            let type = try #require(ElementType(rawValue: dtype))
            let bytes = try #require(Data(base64Encoded: data))
            return try Tensor(elementType: type, shape: shape, bytes: [UInt8](bytes))
        }
    }

    let inputs: [String: Array]
    let outputs: [String: Array]
    let texts: [String: String]

    func given() throws -> Features { Features(try inputs.mapValues { try $0.tensor() }) }
    func expected() throws -> Features { Features(try outputs.mapValues { try $0.tensor() }, texts: texts) }

    static func of(_ model: String) throws -> [Case] {
        let path = try #require(ProcessInfo.processInfo.environment["PLANISH_CASES"])
        let all = try JSONDecoder().decode([String: [Case]].self, from: Data(contentsOf: URL(fileURLWithPath: path)))
        return try #require(all[model])
    }
}

/// Engines that several tests use, started once.
actor Shared {
    static let engines = Shared()
    private var tasks: [String: Task<any InferenceEngine, any Error>] = [:]

    func engine<Model: TypedModel>(_ model: Model.Type) async throws -> any InferenceEngine {
        let name = String(describing: model)
        let task = tasks[name] ?? Task { try await Model.loadEngine().engine }
        tasks[name] = task
        return try await task.value
    }
}

func package<Model: TypedModel>(_ model: Model.Type) -> URL { Model.parts[0].package }

func temporaryFolder() throws -> URL {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    return url
}

/// Numbers that are the same at every run.
struct Chance: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
        return z ^ z >> 31
    }
}

/// A real engine with something done before each call.
struct Wrapped: InferenceEngine {
    let inner: any InferenceEngine
    let before: @Sendable ([Features]) async throws -> Void
    var description: ModelDescription { inner.description }

    func predict(_ inputs: Features) async throws -> Features {
        try await before([inputs])
        return try await inner.predict(inputs)
    }

    func predict(batch: [Features]) async -> [Result<Features, any Error>] {
        do { try await before(batch) } catch { return batch.map { _ in .failure(error) } }
        return await inner.predict(batch: batch)
    }
}

/// The memory of this process that is in use, as Linux says it.
func residentMegabytes() throws -> Double {
    let text = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
    for line in text.split(separator: "\n") where line.hasPrefix("VmRSS") {
        return (Double(String(line.filter { $0.isNumber })) ?? 0) / 1024
    }
    throw InferenceError.unsupported("no VmRSS")
}

func seconds(_ body: () async throws -> Void) async rethrows -> Double {
    let start = ContinuousClock.now
    try await body()
    return (ContinuousClock.now - start).seconds
}

/// Waits until something is so.
func eventually(_ what: () async -> Bool) async throws {
    for _ in 0..<6000 {
        if await what() { return }
        try await Task.sleep(for: .milliseconds(5))
    }
    Issue.record("it never came to be")
}

/// Holds what comes out of a case against what must.
func hold(_ one: Case, _ predict: (Features) async throws -> Features) async throws {
    let made = try await predict(try one.given())
    let expected = try one.expected()
    #expect(made == expected)
}
