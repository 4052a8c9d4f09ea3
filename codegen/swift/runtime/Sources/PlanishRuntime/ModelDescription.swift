import Foundation

/// What a model takes, gives and keeps, as `planish serve` says it and as generated sources hold it.
public struct ModelDescription: Sendable, Codable, Equatable {
    /// One input, output or state.
    public struct Feature: Sendable, Codable, Equatable {
        public enum Kind: String, Sendable, Codable {
            case tensor, image, label, scores, state
        }

        public let name: String
        public let kind: Kind
        /// The type of the elements; `string` or `i64` for a label.
        public let dtype: String
        /// Sizes, nil for one that only a call tells; where sizes vary, those to assume when nothing is said.
        public let shape: [Int?]
        /// The least and greatest size of each axis, -1 for no bound; empty where only `shape` will do.
        public let low: [Int]
        public let high: [Int]
        /// The shapes that are allowed, where they are listed.
        public let shapes: [[Int]]
        /// Of an image: RGB, BGR, GRAYSCALE or GRAYSCALE_FLOAT16.
        public let color: String
        public let classes: [ClassName]
        public let optional: Bool
        public let text: String

        public var elementType: ElementType? { ElementType(rawValue: dtype) }

        /// Whether an array of this shape may be given.
        public func takes(_ shape: [Int]) -> Bool {
            if !shapes.isEmpty { return shapes.contains(shape) }
            if !low.isEmpty {
                return shape.count == low.count
                    && zip(shape, zip(low, high)).allSatisfy { $0 >= $1.0 && ($1.1 < 0 || $0 <= $1.1) }
            }
            return shape == self.shape
        }

        var spelled: String {
            if !shapes.isEmpty { return "a shape among \(shapes)" }
            if !low.isEmpty {
                let sides = zip(low, high).map { $0 == $1 ? "\($0)" : "\($0)…\($1 < 0 ? "" : "\($1)")" }
                return "the shape [\(sides.joined(separator: ", "))]"
            }
            return "the shape \(shape.map { $0 ?? -1 })"
        }
    }

    /// How many rows one call may have along the first axis of some inputs and of every output.
    public struct Rows: Sendable, Codable, Equatable {
        /// The inputs that have rows; others are the same for all.
        public let inputs: [String]
        public let low: Int
        /// -1 for no bound.
        public let high: Int
        /// The numbers that are allowed; empty where all from `low` to `high` are.
        public let sizes: [Int]
    }

    public let name: String
    /// `mlprogram`, `metal` or `hybrid`.
    public let kind: String
    public let inputs: [Feature]
    public let outputs: [Feature]
    public let states: [Feature]
    /// nil where rows may mix, or where nobody has shown that they do not.
    public let rows: Rows?
    public let os: String
    public let metadata: [String: String]

    /// - Throws: `DecodingError` where the text is not what `planish` writes.
    public init(json: String) throws {
        self = try JSONDecoder().decode(ModelDescription.self, from: Data(json.utf8))
    }

    init(
        name: String, kind: String, inputs: [Feature], outputs: [Feature], states: [Feature], rows: Rows?,
        os: String = "", metadata: [String: String] = [:]
    ) {
        self.name = name
        self.kind = kind
        self.inputs = inputs
        self.outputs = outputs
        self.states = states
        self.rows = rows
        self.os = os
        self.metadata = metadata
    }

    /// Holds inputs against what the model takes.
    ///
    /// - Throws: the `InferenceError` that says what does not fit.
    public func check(_ given: Features) throws {
        for name in given.tensors.keys where !inputs.contains(where: { $0.name == name }) {
            throw InferenceError.unknownInput(name, known: inputs.map(\.name))
        }
        for feature in inputs {
            guard let tensor = given.tensors[feature.name] else { throw InferenceError.missingInput(feature.name) }
            if feature.kind == .image, tensor.elementType == .uint8 {
                try checkPicture(tensor, for: feature)
                continue
            }
            guard tensor.elementType == feature.elementType else {
                throw InferenceError.wrongType(
                    input: feature.name, expected: feature.dtype, given: tensor.elementType.rawValue)
            }
            guard feature.takes(tensor.shape) else {
                throw InferenceError.wrongShape(input: feature.name, expected: feature.spelled, given: tensor.shape)
            }
        }
    }

    /// Pictures are height × width × 3, or height × width where there is one plane.
    private func checkPicture(_ tensor: Tensor, for feature: Feature) throws {
        let gray = feature.color.hasPrefix("GRAY")
        let fits = gray ? tensor.shape.count == 2 : tensor.shape.count == 3 && tensor.shape[2] == 3
        guard fits, feature.takes([1, gray ? 1 : 3, tensor.shape[0], tensor.shape[1]]) else {
            throw InferenceError.wrongShape(input: feature.name, expected: feature.spelled, given: tensor.shape)
        }
    }
}

/// The name of a class: text, or a number in models whose classes are numbers.
public struct ClassName: Sendable, Codable, Hashable, CustomStringConvertible {
    public let description: String

    public init(_ description: String) { self.description = description }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let number = try? container.decode(Int64.self) {
            description = String(number)
        } else {
            description = try container.decode(String.self)
        }
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}
