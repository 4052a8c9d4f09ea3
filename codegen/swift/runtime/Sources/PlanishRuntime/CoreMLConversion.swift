#if canImport(CoreML)
import CoreML
import CoreVideo
import Foundation

/// Between this library's values and Core ML's.
enum CoreMLConversion {
    static func provider(of inputs: Features, _ description: ModelDescription) throws -> any MLFeatureProvider {
        var values: [String: Any] = [:]
        for feature in description.inputs {
            guard let tensor = inputs.tensors[feature.name] else { throw InferenceError.missingInput(feature.name) }
            if feature.kind == .image {
                let picture = try PixelImage(tensor, bgr: feature.color == "BGR")
                let half = feature.color == "GRAYSCALE_FLOAT16"
                values[feature.name] = MLFeatureValue(pixelBuffer: try picture.makePixelBuffer(half: half))
            } else {
                values[feature.name] = MLFeatureValue(multiArray: try multiArray(of: tensor))
            }
        }
        return try MLDictionaryFeatureProvider(dictionary: values)
    }

    static func features(of made: any MLFeatureProvider, _ description: ModelDescription) throws -> Features {
        var out = Features()
        for feature in description.outputs {
            guard let value = made.featureValue(for: feature.name) else {
                throw InferenceError.missingOutput(feature.name)
            }
            switch feature.kind {
            case .label:
                out.texts[feature.name] = feature.dtype == "string" ? value.stringValue : String(value.int64Value)
            case .scores:
                let table = value.dictionaryValue
                let scores = feature.classes.map { name -> Double in
                    let number = Int64(name.description).flatMap { table[AnyHashable($0)] }
                    return (table[AnyHashable(name.description)] ?? number)?.doubleValue ?? 0
                }
                out.tensors[feature.name] = try Tensor(scores, shape: [scores.count])
            case .image:
                guard let buffer = value.imageBufferValue else { throw InferenceError.missingOutput(feature.name) }
                out.tensors[feature.name] = try PixelImage(buffer).tensor
            case .tensor, .state:
                guard let array = value.multiArrayValue else { throw InferenceError.missingOutput(feature.name) }
                out.tensors[feature.name] = try tensor(of: array)
            }
        }
        return out
    }

    static func multiArray(of tensor: Tensor) throws -> MLMultiArray {
        let type: MLMultiArrayDataType =
            switch tensor.elementType {
            case .float16: .float16
            case .float32: .float32
            case .float64: .double
            case .int32: .int32
            default: throw InferenceError.unsupported("Core ML has no arrays of \(tensor.elementType.rawValue)")
            }
        // Core ML has no arrays without axes: a scalar is a vector of one.
        let shape = tensor.shape.isEmpty ? [1] : tensor.shape
        let array = try MLMultiArray(shape: shape.map { NSNumber(value: $0) }, dataType: type)
        array.withUnsafeMutableBytes { bytes, strides in
            let size = tensor.elementType.size
            each(shape, strides) { index, place in
                bytes[place * size..<(place + 1) * size]
                    .copyBytes(from: tensor.bytes[index * size..<(index + 1) * size])
            }
        }
        return array
    }

    static func tensor(of array: MLMultiArray) throws -> Tensor {
        let type: ElementType =
            switch array.dataType {
            case .float16: .float16
            case .float32: .float32
            case .double: .float64
            case .int32: .int32
            default: throw InferenceError.unsupported("an array of a type that is not known")
            }
        let shape = array.shape.map(\.intValue)
        let size = type.size
        var out = [UInt8](repeating: 0, count: shape.reduce(size, *))
        let strides = array.strides.map(\.intValue)
        array.withUnsafeBytes { bytes in
            each(shape, strides) { index, place in
                for i in 0..<size { out[index * size + i] = bytes[place * size + i] }
            }
        }
        return try Tensor(elementType: type, shape: shape, bytes: out)
    }

    /// Calls `body` with the number of every element and where it lies; Core ML may leave room between rows.
    private static func each(_ shape: [Int], _ strides: [Int], _ body: (Int, Int) -> Void) {
        let count = shape.reduce(1, *)
        var position = [Int](repeating: 0, count: shape.count)
        var place = 0
        for index in 0..<count {
            body(index, place)
            var axis = shape.count - 1
            while axis >= 0 {
                position[axis] += 1
                place += strides[axis]
                if position[axis] < shape[axis] { break }
                place -= position[axis] * strides[axis]
                position[axis] = 0
                axis -= 1
            }
        }
    }
}

extension Shaped where Scalar: MLShapedArrayScalar {
    public init(_ array: MLShapedArray<Scalar>) throws { try self.init(array.scalars, shape: array.shape) }

    public var shapedArray: MLShapedArray<Scalar> { MLShapedArray(scalars: scalars, shape: shape) }
}

@available(iOS 18, macOS 15, *)
extension Shaped where Scalar: MLShapedArrayScalar & MLTensorScalar {
    public init(_ tensor: MLTensor) async throws { try self.init(await tensor.shapedArray(of: Scalar.self)) }

    public var mlTensor: MLTensor { MLTensor(shapedArray) }
}
#endif
