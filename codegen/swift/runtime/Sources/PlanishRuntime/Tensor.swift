import Foundation

/// The type of a tensor's elements, under the names that `planish serve` uses.
public enum ElementType: String, Sendable, Codable, CaseIterable {
    case bool
    case int8 = "i8"
    case int16 = "i16"
    case int32 = "i32"
    case int64 = "i64"
    case uint8 = "u8"
    case uint16 = "u16"
    case uint32 = "u32"
    case uint64 = "u64"
    case float16 = "f16"
    case float32 = "f32"
    case float64 = "f64"

    /// Bytes of one element.
    public var size: Int {
        switch self {
        case .bool, .int8, .uint8: 1
        case .int16, .uint16, .float16: 2
        case .int32, .uint32, .float32: 4
        case .int64, .uint64, .float64: 8
        }
    }

    /// Types that `Tensor.converted(to:)` turns into each other.
    enum Family { case truth, integer, real }

    var family: Family {
        switch self {
        case .bool: .truth
        case .int8, .int16, .int32, .int64, .uint8, .uint16, .uint32, .uint64: .integer
        case .float16, .float32, .float64: .real
        }
    }
}

/// How many bytes or elements a shape has; nil where a size is negative or the number is more than `Int` holds.
func extent(_ shape: [Int], of size: Int = 1) -> Int? {
    var total = size
    for axis in shape {
        let (product, overflow) = total.multipliedReportingOverflow(by: axis)
        if axis < 0 || overflow { return nil }
        total = product
    }
    return total
}

/// A Swift type that tensors can have as elements.
public protocol TensorScalar: Sendable, BitwiseCopyable {
    static var elementType: ElementType { get }
}

extension Bool: TensorScalar { public static var elementType: ElementType { .bool } }
extension Int8: TensorScalar { public static var elementType: ElementType { .int8 } }
extension Int16: TensorScalar { public static var elementType: ElementType { .int16 } }
extension Int32: TensorScalar { public static var elementType: ElementType { .int32 } }
extension Int64: TensorScalar { public static var elementType: ElementType { .int64 } }
extension UInt8: TensorScalar { public static var elementType: ElementType { .uint8 } }
extension UInt16: TensorScalar { public static var elementType: ElementType { .uint16 } }
extension UInt32: TensorScalar { public static var elementType: ElementType { .uint32 } }
extension UInt64: TensorScalar { public static var elementType: ElementType { .uint64 } }
extension Float: TensorScalar { public static var elementType: ElementType { .float32 } }
extension Double: TensorScalar { public static var elementType: ElementType { .float64 } }
#if !((os(macOS) || targetEnvironment(macCatalyst)) && arch(x86_64))
extension Float16: TensorScalar { public static var elementType: ElementType { .float16 } }
#endif

/// An array of any number of axes whose element type is known at run time: what engines take and give.
///
/// Elements are little-endian and row-major, as all machines that run this have them.
public struct Tensor: Sendable, Hashable {
    public let elementType: ElementType
    public let shape: [Int]
    public let bytes: [UInt8]

    /// How many elements there are.
    public var count: Int { shape.reduce(1, *) }

    /// A tensor from the bytes of its elements.
    ///
    /// - Throws: `InferenceError.malformedTensor` where there are not as many bytes as the shape says.
    public init(elementType: ElementType, shape: [Int], bytes: [UInt8]) throws {
        guard extent(shape, of: elementType.size) == bytes.count else {
            throw InferenceError.malformedTensor("\(bytes.count) bytes are no \(elementType.rawValue)\(shape)")
        }
        self.init(unchecked: elementType, shape, bytes)
    }

    /// A tensor from its elements in row-major order.
    ///
    /// - Throws: `InferenceError.malformedTensor` where there are not as many as the shape says.
    public init<Scalar: TensorScalar>(_ scalars: [Scalar], shape: [Int]) throws {
        let bytes = scalars.withUnsafeBytes { [UInt8]($0) }
        try self.init(elementType: Scalar.elementType, shape: shape, bytes: bytes)
    }

    init(unchecked elementType: ElementType, _ shape: [Int], _ bytes: [UInt8]) {
        self.elementType = elementType
        self.shape = shape
        self.bytes = bytes
    }

    /// The elements in row-major order.
    ///
    /// - Throws: `InferenceError.malformedTensor` where they are of another type.
    public func scalars<Scalar: TensorScalar>(as type: Scalar.Type = Scalar.self) throws -> [Scalar] {
        guard Scalar.elementType == elementType else {
            throw InferenceError.malformedTensor("a tensor of \(elementType.rawValue) has no \(Scalar.self)s")
        }
        if elementType == .bool, let truths = bytes.map({ $0 != 0 }) as? [Scalar] { return truths }
        let count = self.count
        return [Scalar](unsafeUninitializedCapacity: count) { buffer, filled in
            bytes.withUnsafeBytes { UnsafeMutableRawBufferPointer(buffer).copyMemory(from: $0) }
            filled = count
        }
    }
}

/// An array of any number of axes whose element type is known at compile time: what typed models take and give.
public struct Shaped<Scalar: TensorScalar>: Sendable {
    public let shape: [Int]
    /// The elements in row-major order.
    public let scalars: [Scalar]

    /// - Throws: `InferenceError.malformedTensor` where there are not as many elements as the shape says.
    public init(_ scalars: [Scalar], shape: [Int]) throws {
        guard extent(shape) == scalars.count else {
            throw InferenceError.malformedTensor("\(scalars.count) elements do not fill \(shape)")
        }
        self.shape = shape
        self.scalars = scalars
    }

    /// One element in all places.
    public init(repeating scalar: Scalar, shape: [Int]) {
        self.shape = shape
        self.scalars = Array(repeating: scalar, count: shape.reduce(1, *))
    }

    /// - Throws: `InferenceError.malformedTensor` where the tensor's elements are of another type.
    public init(_ tensor: Tensor) throws {
        self.shape = tensor.shape
        self.scalars = try tensor.scalars()
    }

    public var tensor: Tensor {
        Tensor(unchecked: Scalar.elementType, shape, scalars.withUnsafeBytes { [UInt8]($0) })
    }

    /// The element at a position, one index for each axis.
    public subscript(_ position: Int...) -> Scalar {
        precondition(position.count == shape.count, "\(position.count) indices for \(shape.count) axes")
        var offset = 0
        for (index, size) in zip(position, shape) {
            precondition(index >= 0 && index < size, "index \(index) on an axis of \(size)")
            offset = offset * size + index
        }
        return scalars[offset]
    }
}

extension Shaped: Equatable where Scalar: Equatable {}
