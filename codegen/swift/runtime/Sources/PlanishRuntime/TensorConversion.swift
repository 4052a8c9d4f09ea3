extension Tensor {
    /// The same numbers as elements of another type; floats are rounded to the nearest.
    ///
    /// - Throws: `InferenceError.malformedTensor` where an integer does not fit, or floats would become integers.
    public func converted(to type: ElementType) throws -> Tensor {
        if type == elementType { return self }
        switch elementType {
        case .float16, .float32, .float64: return try Self.make(try reals(), type, shape)
        default: return try Self.make(try integers(), type, shape)
        }
    }

    private func reals() throws -> [Double] {
        switch elementType {
        #if !((os(macOS) || targetEnvironment(macCatalyst)) && arch(x86_64))
        case .float16: return try (scalars() as [Float16]).map(Double.init)
        #endif
        case .float32: return try (scalars() as [Float]).map(Double.init)
        case .float64: return try scalars()
        default: throw InferenceError.malformedTensor("\(elementType.rawValue) cannot be read here")
        }
    }

    private func integers() throws -> [Int64] {
        switch elementType {
        case .bool: try (scalars() as [Bool]).map { $0 ? 1 : 0 }
        case .int8: try (scalars() as [Int8]).map(Int64.init)
        case .int16: try (scalars() as [Int16]).map(Int64.init)
        case .int32: try (scalars() as [Int32]).map(Int64.init)
        case .int64: try scalars()
        case .uint8: try (scalars() as [UInt8]).map(Int64.init)
        case .uint16: try (scalars() as [UInt16]).map(Int64.init)
        case .uint32: try (scalars() as [UInt32]).map(Int64.init)
        case .uint64: try (scalars() as [UInt64]).map { try Self.exactly($0) }
        default: throw InferenceError.malformedTensor("\(elementType.rawValue) holds no integers")
        }
    }

    private static func make(_ reals: [Double], _ type: ElementType, _ shape: [Int]) throws -> Tensor {
        switch type {
        #if !((os(macOS) || targetEnvironment(macCatalyst)) && arch(x86_64))
        case .float16: return try Tensor(reals.map { Float16($0) }, shape: shape)
        #endif
        case .float32: return try Tensor(reals.map { Float($0) }, shape: shape)
        case .float64: return try Tensor(reals, shape: shape)
        default: throw InferenceError.malformedTensor("floats do not become \(type.rawValue)")
        }
    }

    private static func make(_ integers: [Int64], _ type: ElementType, _ shape: [Int]) throws -> Tensor {
        switch type {
        case .bool: try Tensor(integers.map { $0 != 0 }, shape: shape)
        case .int8: try Tensor(integers.map { try exactly($0) as Int8 }, shape: shape)
        case .int16: try Tensor(integers.map { try exactly($0) as Int16 }, shape: shape)
        case .int32: try Tensor(integers.map { try exactly($0) as Int32 }, shape: shape)
        case .int64: try Tensor(integers, shape: shape)
        case .uint8: try Tensor(integers.map { try exactly($0) as UInt8 }, shape: shape)
        case .uint16: try Tensor(integers.map { try exactly($0) as UInt16 }, shape: shape)
        case .uint32: try Tensor(integers.map { try exactly($0) as UInt32 }, shape: shape)
        case .uint64: try Tensor(integers.map { try exactly($0) as UInt64 }, shape: shape)
        case .float16, .float32, .float64: try make(integers.map(Double.init), type, shape)
        }
    }

    private static func exactly<From: BinaryInteger, To: BinaryInteger>(_ number: From) throws -> To {
        guard let out = To(exactly: number) else {
            throw InferenceError.malformedTensor("\(number) does not fit into \(To.self)")
        }
        return out
    }
}
