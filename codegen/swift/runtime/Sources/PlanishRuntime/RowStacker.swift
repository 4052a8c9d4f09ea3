/// Puts requests for a model whose rows do not mix into one call, and takes its outputs apart again.
///
/// Where a model takes some numbers of rows only, or takes any (then powers of two are used, since engines prepare
/// themselves for each shape), rows are filled up with copies of the last, whose results nobody gets.
public struct RowStacker: Sendable {
    private let rows: ModelDescription.Rows
    private let outputs: [String]
    /// The most rows of one call.
    public let most: Int

    /// How many rows a call has at most where the model sets no bound.
    public static let mostUnbounded = 64

    /// nil where the model's rows may mix.
    public init?(_ description: ModelDescription) {
        guard let rows = description.rows else { return nil }
        self.rows = rows
        outputs = description.outputs.map(\.name)
        most = rows.sizes.last ?? (rows.high < 0 ? Self.mostUnbounded : rows.high)
    }

    /// The smallest number of rows that a call may have and that is no less than `count`.
    public func size(for count: Int) -> Int {
        if !rows.sizes.isEmpty { return rows.sizes.first { $0 >= count } ?? most }
        var size = 1
        while size < max(count, rows.low) { size *= 2 }
        return max(min(size, most), rows.low)
    }

    /// How many rows a request has.
    public func count(_ request: Features) -> Int { request.tensors[rows.inputs[0]]?.shape.first ?? 0 }

    /// Whether a request is a call as it stands.
    func isWhole(_ request: Features) -> Bool { size(for: count(request)) == count(request) }

    /// Whether two requests can share a call: they differ in rows only.
    public func fit(_ a: Features, _ b: Features) -> Bool {
        a.tensors.count == b.tensors.count
            && a.tensors.allSatisfy { name, tensor in
                guard let other = b.tensors[name], other.elementType == tensor.elementType else { return false }
                return rows.inputs.contains(name)
                    ? other.shape.dropFirst() == tensor.shape.dropFirst() : other == tensor
            }
    }

    /// Behind which request a call ends that starts with the one at `start`; requests keep their order.
    func end(of batch: [Features], from start: Int) -> Int {
        var total = count(batch[start])
        var end = start + 1
        while end < batch.count, fit(batch[start], batch[end]), total + count(batch[end]) <= most {
            total += count(batch[end])
            end += 1
        }
        return end
    }

    /// One call of several requests.
    ///
    /// - Throws: `InferenceError.malformedTensor` where they do not fit together.
    func stack(_ batch: [Features]) throws -> Features {
        let total = batch.reduce(0) { $0 + count($1) }
        let size = size(for: total)
        var out = batch[0]
        for name in rows.inputs {
            var bytes: [UInt8] = []
            guard let first = batch[0].tensors[name], total > 0 else {
                throw InferenceError.malformedTensor("a request has no rows in '\(name)'")
            }
            let row = first.bytes.count / max(first.shape[0], 1)
            bytes.reserveCapacity(row * size)
            for one in batch {
                guard let tensor = one.tensors[name], tensor.shape[0] == count(one) else {
                    throw InferenceError.malformedTensor("inputs of a request have different numbers of rows")
                }
                bytes += tensor.bytes
            }
            let last = bytes[(bytes.count - row)...]
            for _ in total..<max(size, total) { bytes += last }
            out.tensors[name] = try Tensor(
                elementType: first.elementType, shape: [size] + first.shape.dropFirst(), bytes: bytes)
        }
        return out
    }

    /// What each request gets of the outputs of a call.
    ///
    /// - Throws: `InferenceError` where an output is missing or has not the rows that went in.
    func unstack(_ given: Features, of batch: [Features]) throws -> [Features] {
        let size = size(for: batch.reduce(0) { $0 + count($1) })
        var out = batch.map { _ in Features() }
        for name in outputs {
            let tensor = try given.tensor(name)
            guard tensor.shape.first == size else {
                throw InferenceError.protocolViolation("output '\(name)' has shape \(tensor.shape) for \(size) rows")
            }
            let row = tensor.bytes.count / size
            var start = 0
            for (i, one) in batch.enumerated() {
                let end = start + count(one) * row
                out[i].tensors[name] = Tensor(
                    unchecked: tensor.elementType, [count(one)] + tensor.shape.dropFirst(),
                    [UInt8](tensor.bytes[start..<end]))
                start = end
            }
        }
        return out
    }
}
