import Foundation

/// The plan of a `.metalpackage`: buffers, and dispatches in order (docs/metal.md).
public struct MetalPlan: Sendable, Codable {
    public struct Buffer: Sendable, Codable {
        public let name: String
        /// `input`, `output`, `constant`, `scratch`, or `count`, which says how many rows of an output hold something.
        public let kind: String
        /// The type of its elements in Metal: `float`, `half`, `int`, `bool`, `char` or `uchar`.
        public let store: String
        public let shape: [Int]
        /// The type that callers see.
        public let declared: String
        /// In bytes: of constants in the file of weights, of scratch in the heap.
        public let offset: Int
        /// What the planes of a texture are; nothing where it is a buffer.
        public let pixels: String?
        /// The buffer whose one element says how many rows hold something; -1 where all do.
        public let rows: Int?

        public var elementType: ElementType? {
            switch store {
            case "float": .float32
            case "half": .float16
            case "int": .int32
            case "bool": .bool
            case "char": .int8
            case "uchar": .uint8
            default: nil
            }
        }

        public var byteCount: Int { extent(shape, of: elementType?.size ?? 0) ?? .max }
    }

    public struct Binding: Sendable, Codable {
        public let buffer: Int
        public let writes: Bool
    }

    /// The value of a function constant.
    public struct Constant: Sendable, Codable {
        public let index: Int
        public let value: Int32
    }

    /// A function of the library with values for its function constants.
    public struct Variant: Sendable, Codable {
        public let function: String
        public let constants: [Constant]
    }

    public struct Dispatch: Sendable, Codable {
        /// The function, or the name of a variant of one.
        public let kernel: String
        public let groups: Int
        public let threads: Int
        public let bindings: [Binding]
        /// Whether dispatches since the last wait must have ended before.
        public let wait: Bool
        public let variant: Variant?
    }

    public let name: String
    public let heap: Int
    public let buffers: [Buffer]
    public let dispatches: [Dispatch]
    public let metadata: [String: String]

    /// The most threads of a threadgroup on every GPU since A11.
    public static let mostThreads = 1024

    /// - Throws: `InferenceError.unsupported` where the plan is broken; see `validate`.
    public init(package: URL) throws {
        let data = try Data(contentsOf: package.appendingPathComponent("plan.json"))
        self = try JSONDecoder().decode(MetalPlan.self, from: data)
        let weights = try Data(contentsOf: package.appendingPathComponent("weights.bin"), options: .alwaysMapped)
        try validate(weightBytes: weights.count)
    }

    /// What callers see of it.
    public var description: ModelDescription {
        func features(_ kind: String) -> [ModelDescription.Feature] {
            buffers.filter { $0.kind == kind }.map {
                .init(
                    name: $0.name, kind: .tensor, dtype: $0.declared, shape: $0.shape, low: [], high: [], shapes: [],
                    color: "", classes: [], optional: false, text: "")
            }
        }
        return ModelDescription(
            name: name, kind: "metal", inputs: features("input"), outputs: features("output"), states: [], rows: nil,
            metadata: metadata)
    }

    /// Holds the plan against what a runner takes for granted.
    ///
    /// - Throws: `InferenceError.unsupported` where a buffer lies outside its file or heap or is a texture, a dispatch is
    ///   too large or binds what is not there, or one uses what another writes without a wait between them.
    public func validate(weightBytes: Int) throws {
        func refuse(_ reason: String) -> InferenceError { .unsupported("the plan of '\(name)' is broken: \(reason)") }
        for buffer in buffers {
            guard buffer.elementType != nil, buffer.shape.allSatisfy({ $0 >= 0 }), buffer.offset >= 0 else {
                throw refuse("buffer '\(buffer.name)' has \(buffer.store)\(buffer.shape)")
            }
            guard buffer.pixels?.isEmpty ?? true else {
                throw InferenceError.unsupported(
                    "'\(buffer.name)' of '\(name)' is a texture, which the class in Plan.swift binds")
            }
            guard (buffer.rows ?? -1) < buffers.count else {
                throw refuse("the rows of '\(buffer.name)' are counted in a buffer that is not there")
            }
            let room = ["constant": weightBytes, "scratch": heap][buffer.kind]
            if let room, buffer.offset > room || buffer.byteCount > room - buffer.offset {
                throw refuse("buffer '\(buffer.name)' ends behind its \(buffer.kind == "scratch" ? "heap" : "file")")
            }
        }
        var read: [Range<Int>] = []
        var written: [Range<Int>] = []
        for dispatch in dispatches {
            guard (1...Self.mostThreads).contains(dispatch.threads), dispatch.groups >= 1 else {
                throw refuse("\(dispatch.kernel) has \(dispatch.groups) × \(dispatch.threads) threads")
            }
            if dispatch.wait { (read, written) = ([], []) }
            var newRead: [Range<Int>] = []
            var newWritten: [Range<Int>] = []
            for binding in dispatch.bindings {
                guard buffers.indices.contains(binding.buffer) else {
                    throw refuse("\(dispatch.kernel) binds a buffer that is not there")
                }
                let place = place(of: binding.buffer)
                let before = binding.writes ? read + written : written
                if before.contains(where: { $0.overlaps(place) }) && !joins(binding, place, written) {
                    throw refuse("\(dispatch.kernel) does not wait for '\(buffers[binding.buffer].name)'")
                }
                if binding.writes { newWritten.append(place) } else { newRead.append(place) }
            }
            read += newRead
            written += newWritten
        }
    }

    /// Kernels that make parts of one buffer write into it side by side.
    private func joins(_ binding: Binding, _ place: Range<Int>, _ written: [Range<Int>]) -> Bool {
        binding.writes && written.contains(place)
    }

    /// Where a buffer lies; scratch shares the heap, others have places of their own behind it.
    private func place(of index: Int) -> Range<Int> {
        let buffer = buffers[index]
        if buffer.kind == "scratch" { return buffer.offset..<buffer.offset + buffer.byteCount }
        let own = heap + index
        return own..<own + 1
    }
}
