import Foundation

/// The frames of `planish serve`: a length, a header in JSON, the elements of the tensors that it lists.
enum Frame {
    struct Entry: Codable {
        let name: String
        let dtype: String
        let shape: [Int]
        var values: [String]?
    }

    struct Request: Encodable {
        let id: UInt64
        var op: String?
        var state: Int?
        var tensors: [Entry]?
    }

    struct Failure: Decodable, Sendable {
        let kind: String
        let message: String
        let remedy: String?
    }

    struct Reply: Decodable {
        var id: UInt64?
        var ready: Int?
        var description: ModelDescription?
        var seconds: Double?
        var state: Int?
        var error: Failure?
        var tensors: [Entry]?
    }

    /// The bytes of a request, its length in front.
    static func encode(_ request: Request, _ inputs: Features = Features()) throws -> [UInt8] {
        var request = request
        let names = inputs.tensors.keys.sorted()
        if !names.isEmpty {
            request.tensors = names.compactMap { name in
                inputs.tensors[name].map { Entry(name: name, dtype: $0.elementType.rawValue, shape: $0.shape) }
            }
        }
        let header = try JSONEncoder().encode(request)
        let total = 4 + header.count + inputs.byteCount
        guard let length = UInt32(exactly: total) else {
            throw InferenceError.unsupported("a request of \(total) bytes is longer than a frame can be")
        }
        var out: [UInt8] = []
        out.reserveCapacity(4 + total)
        for number in [length, UInt32(header.count)] { withUnsafeBytes(of: number.littleEndian) { out += $0 } }
        out += header
        for name in names { out += inputs.tensors[name]?.bytes ?? [] }
        return out
    }

    /// The header and the tensors of what stands behind a length.
    ///
    /// - Throws: `InferenceError.protocolViolation` where that is no frame.
    static func decode(_ payload: [UInt8]) throws -> (Reply, Features) {
        guard payload.count >= 4 else { throw InferenceError.protocolViolation("a frame of \(payload.count) bytes") }
        let length = Int(number(payload[0..<4]))
        guard length <= payload.count - 4 else {
            throw InferenceError.protocolViolation("a header of \(length) bytes in a frame of \(payload.count)")
        }
        let reply: Reply
        do {
            reply = try JSONDecoder().decode(Reply.self, from: Data(payload[4..<4 + length]))
        } catch {
            throw InferenceError.protocolViolation("a header that cannot be read: \(error)")
        }
        var features = Features()
        var start = 4 + length
        for entry in reply.tensors ?? [] {
            if entry.dtype == "string" {
                features.texts[entry.name] = entry.values?.first ?? ""
                continue
            }
            guard let type = ElementType(rawValue: entry.dtype), let size = extent(entry.shape, of: type.size),
                size <= payload.count - start
            else {
                throw InferenceError.protocolViolation(
                    "a tensor '\(entry.name)' of \(entry.dtype)\(entry.shape) in \(payload.count - start) bytes")
            }
            let end = start + size
            features.tensors[entry.name] = Tensor(unchecked: type, entry.shape, [UInt8](payload[start..<end]))
            start = end
        }
        return (reply, features)
    }

    static func number(_ bytes: ArraySlice<UInt8>) -> UInt32 {
        bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }
}
