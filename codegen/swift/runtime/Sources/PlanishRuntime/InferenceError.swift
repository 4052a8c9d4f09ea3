/// Why a prediction was not made. A request that its caller cancelled fails with `CancellationError` instead.
public enum InferenceError: Error, Sendable, Equatable, CustomStringConvertible {
    case missingInput(String)
    case unknownInput(String, known: [String])
    case wrongType(input: String, expected: String, given: String)
    case wrongShape(input: String, expected: String, given: [Int])
    case missingOutput(String)
    case malformedTensor(String)
    /// The engine computed and failed; the next request may well succeed.
    case evaluation(String)
    /// The engine ended while the request was with it.
    case engineLost(String)
    /// The engine cannot be started, or no more.
    case engineUnavailable(String)
    /// What came back is not what was asked for.
    case protocolViolation(String)
    case queueFull(capacity: Int)
    case deadlineExceeded
    case closed
    /// The model has not been shown to keep rows apart, so that requests must not share a call.
    case rowsNotIndependent(model: String)
    case modelTooLarge(bytes: Int, limit: Int)
    case unsupported(String)

    public var description: String {
        switch self {
        case .missingInput(let name): "there is no input '\(name)'"
        case .unknownInput(let name, let known):
            "the model has no input '\(name)', only \(known.joined(separator: ", "))"
        case .wrongType(let input, let expected, let given): "input '\(input)' takes \(expected), not \(given)"
        case .wrongShape(let input, let expected, let given): "input '\(input)' takes \(expected), not \(given)"
        case .missingOutput(let name): "the engine gave no output '\(name)'"
        case .malformedTensor(let reason): reason
        case .evaluation(let reason): "the prediction failed: \(reason)"
        case .engineLost(let reason): "the engine ended: \(reason)"
        case .engineUnavailable(let reason): "the engine cannot be started: \(reason)"
        case .protocolViolation(let reason): "the engine answered out of turn: \(reason)"
        case .queueFull(let capacity): "\(capacity) requests are waiting already"
        case .deadlineExceeded: "the deadline passed before the prediction was made"
        case .closed: "it is closed"
        case .rowsNotIndependent(let model): "'\(model)' was not compiled with --batch: its rows may mix"
        case .modelTooLarge(let bytes, let limit): "a model of \(bytes) bytes does not fit into \(limit)"
        case .unsupported(let reason): reason
        }
    }
}
