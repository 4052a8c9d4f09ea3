/// What goes into a call or comes out of it: tensors and texts by the names of a model's inputs or outputs.
public struct Features: Sendable, Equatable {
    public var tensors: [String: Tensor]
    /// Labels of classifiers.
    public var texts: [String: String]

    public init(_ tensors: [String: Tensor] = [:], texts: [String: String] = [:]) {
        self.tensors = tensors
        self.texts = texts
    }

    /// - Throws: `InferenceError.missingOutput` where there is none of this name.
    public func tensor(_ name: String) throws -> Tensor {
        guard let found = tensors[name] else { throw InferenceError.missingOutput(name) }
        return found
    }

    /// - Throws: `InferenceError.missingOutput` where there is none of this name.
    public func text(_ name: String) throws -> String {
        guard let found = texts[name] else { throw InferenceError.missingOutput(name) }
        return found
    }

    var byteCount: Int { tensors.values.reduce(0) { $0 + $1.bytes.count } }
}
