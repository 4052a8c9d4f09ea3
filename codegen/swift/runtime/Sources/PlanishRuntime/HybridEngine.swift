/// A model in parts that run one after the other on engines of their own: Core ML, Metal kernels, Core ML again.
///
/// Each part takes its inputs by name from what the caller gives and what earlier parts made. Where a name is made
/// twice, the latest counts.
public final class HybridEngine: InferenceEngine {
    public let description: ModelDescription
    private let parts: [any InferenceEngine]

    /// - Parameter outputs: what the whole gives; all outputs that no later part takes, where nil.
    /// - Throws: `InferenceError.unsupported` where the parts do not fit together.
    public init(name: String, parts: [any InferenceEngine], outputs: [String]? = nil) throws {
        self.parts = parts
        description = try Self.join(name, parts.map(\.description), outputs)
    }

    public func predict(_ inputs: Features) async throws -> Features {
        try description.check(inputs)
        var known = inputs
        for part in parts {
            var given = Features()
            for feature in part.description.inputs {
                guard let tensor = known.tensors[feature.name], let type = feature.elementType else { continue }
                // Core ML has 32 bits where kernels have 64.
                given.tensors[feature.name] = feature.kind == .tensor ? try tensor.converted(to: type) : tensor
            }
            let made = try await part.predict(given)
            known.tensors.merge(made.tensors) { $1 }
            known.texts.merge(made.texts) { $1 }
        }
        var out = Features()
        for feature in description.outputs {
            out.tensors[feature.name] = known.tensors[feature.name]
            out.texts[feature.name] = known.texts[feature.name]
        }
        return out
    }

    public func shutdown() async {
        for part in parts { await part.shutdown() }
    }

    /// The description of the whole: what no part makes is an input, what no later part takes is an output.
    public static func join(
        _ name: String, _ parts: [ModelDescription], _ wanted: [String]?
    ) throws -> ModelDescription {
        var inputs: [ModelDescription.Feature] = []
        var made: [(feature: ModelDescription.Feature, taken: Bool)] = []
        for part in parts {
            guard part.states.isEmpty else {
                throw InferenceError.unsupported("part '\(part.name)' keeps a state")
            }
            for feature in part.inputs {
                if let place = made.lastIndex(where: { $0.feature.name == feature.name }) {
                    try fit(made[place].feature, feature, part.name)
                    made[place].taken = true
                } else if let first = inputs.first(where: { $0.name == feature.name }) {
                    try fit(first, feature, part.name)
                } else {
                    inputs.append(feature)
                }
            }
            for feature in part.outputs {
                made.removeAll { $0.feature.name == feature.name }
                made.append((feature, false))
            }
        }
        let outputs: [ModelDescription.Feature]
        if let wanted {
            outputs = try wanted.map { name in
                guard let found = made.first(where: { $0.feature.name == name }) else {
                    throw InferenceError.unsupported("no part makes '\(name)'")
                }
                return found.feature
            }
        } else {
            outputs = made.filter { !$0.taken }.map(\.feature)
        }
        return ModelDescription(
            name: name, kind: "hybrid", inputs: inputs, outputs: outputs, states: [], rows: nil,
            os: parts.map(\.os).max() ?? "")
    }

    private static func fit(
        _ made: ModelDescription.Feature, _ taken: ModelDescription.Feature, _ part: String
    ) throws {
        let known = made.shape.compactMap { $0 }
        let alike =
            made.dtype == taken.dtype
            || made.kind == .tensor && taken.kind == .tensor && made.elementType?.family != nil
                && made.elementType?.family == taken.elementType?.family
        guard alike, known.count != made.shape.count || taken.takes(known) else {
            throw InferenceError.unsupported(
                "'\(made.name)' is made as \(made.dtype)\(known), and '\(part)' takes \(taken.dtype) of \(taken.spelled)"
            )
        }
    }
}
