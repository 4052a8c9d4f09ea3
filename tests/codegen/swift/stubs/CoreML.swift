// What the runtime uses of Core ML. Held against pages of https://developer.apple.com/documentation/coreml:
// mlmodel/load(contentsof:configuration:), mlmodel/compilemodel(at:)-3nea, mlmodel/prediction(from:using:)-97bu1,
// mlmodel/predictions(frombatch:), mlmodel/makestate(), mlarraybatchprovider/init(array:),
// mlfeaturevalue/init(pixelbuffer:), mlfeaturevalue/imagebuffervalue, mlmultiarray/withunsafebytes(_:),
// mlmultiarray/withunsafemutablebytes(_:), mlmultiarray/strides, mlshapedarrayprotocol/init(scalars:shape:),
// mlshapedarrayprotocol/scalars, mlshapedarrayscalar, mltensor/init(_:)-179ei, mltensor/shapedarray(of:),
// mlcomputedevice, mlneuralenginecomputedevice/totalcorecount. By the header, as docs.rs/objc2-core-ml was
// generated from it: MLMultiArrayDataType, the other members of MLFeatureValue. From memory: MLModelConfiguration,
// MLFeatureProvider, MLDictionaryFeatureProvider, MLBatchProvider.
@_exported import CoreVideo
import Foundation

public enum MLComputeUnits: Int, Sendable {
    case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine
}

open class MLModelConfiguration {
    public init() {}
    open var computeUnits: MLComputeUnits = .all
    open var functionName: String?
}

open class MLModel {
    public class func load(
        contentsOf url: URL, configuration: MLModelConfiguration = MLModelConfiguration()
    ) async throws -> MLModel { fatalError() }
    public class func compileModel(at modelURL: URL) async throws -> URL { fatalError() }
    open func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider { fatalError() }
    open func prediction(
        from inputFeatures: any MLFeatureProvider, using state: MLState
    ) throws -> any MLFeatureProvider { fatalError() }
    open func predictions(fromBatch inputBatch: any MLBatchProvider) throws -> any MLBatchProvider { fatalError() }
    open func makeState() -> MLState { fatalError() }
}

open class MLState {}

public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

open class MLDictionaryFeatureProvider: MLFeatureProvider {
    public init(dictionary: [String: Any]) throws {}
    open var featureNames: Set<String> { fatalError() }
    open func featureValue(for featureName: String) -> MLFeatureValue? { fatalError() }
}

public protocol MLBatchProvider {
    var count: Int { get }
    func features(at index: Int) -> any MLFeatureProvider
}

open class MLArrayBatchProvider: MLBatchProvider {
    public init(array: [any MLFeatureProvider]) {}
    open var count: Int { fatalError() }
    open func features(at index: Int) -> any MLFeatureProvider { fatalError() }
}

open class MLFeatureValue {
    public init(multiArray value: MLMultiArray) {}
    public init(pixelBuffer value: CVPixelBuffer) {}
    open var stringValue: String { fatalError() }
    open var int64Value: Int64 { fatalError() }
    open var dictionaryValue: [AnyHashable: NSNumber] { fatalError() }
    open var multiArrayValue: MLMultiArray? { fatalError() }
    open var imageBufferValue: CVPixelBuffer? { fatalError() }
}

public enum MLMultiArrayDataType: Int, Sendable {
    case double = 0x10040
    case float32 = 0x10020
    case float16 = 0x10010
    case int32 = 0x20020
    case int8 = 0x20008
}

open class MLMultiArray {
    public init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws {}
    open var shape: [NSNumber] { fatalError() }
    open var strides: [NSNumber] { fatalError() }
    open var dataType: MLMultiArrayDataType { fatalError() }
    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R { fatalError() }
    public func withUnsafeMutableBytes<R>(
        _ body: (UnsafeMutableRawBufferPointer, [Int]) throws -> R
    ) rethrows -> R { fatalError() }
}

public protocol MLShapedArrayScalar {}
extension Float: MLShapedArrayScalar, MLTensorScalar {}
extension Double: MLShapedArrayScalar {}
extension Int32: MLShapedArrayScalar, MLTensorScalar {}
extension Float16: MLShapedArrayScalar, MLTensorScalar {}

public protocol MLShapedArrayProtocol<Scalar> {
    associatedtype Scalar: MLShapedArrayScalar
    init<S: Sequence>(scalars: S, shape: [Int]) where S.Element == Scalar
    var scalars: [Scalar] { get set }
    var shape: [Int] { get }
}

public struct MLShapedArray<Scalar: MLShapedArrayScalar>: MLShapedArrayProtocol {
    public init<S: Sequence>(scalars: S, shape: [Int]) where S.Element == Scalar { fatalError() }
    public var scalars: [Scalar] {
        get { fatalError() }
        set {}
    }
    public var shape: [Int] { fatalError() }
}

public protocol MLTensorScalar: Sendable {}

public struct MLTensor: Sendable {
    public init<ShapedArray: MLShapedArrayProtocol>(_ shapedArray: ShapedArray)
    where ShapedArray.Scalar: MLTensorScalar { fatalError() }
    public func shapedArray<Scalar: MLShapedArrayScalar & MLTensorScalar>(
        of scalarType: Scalar.Type
    ) async -> MLShapedArray<Scalar> { fatalError() }
}

public enum MLComputeDevice: @unchecked Sendable {
    case cpu(MLCPUComputeDevice)
    case gpu(MLGPUComputeDevice)
    case neuralEngine(MLNeuralEngineComputeDevice)
    public static var allComputeDevices: [MLComputeDevice] { fatalError() }
}

open class MLCPUComputeDevice {}
open class MLGPUComputeDevice {}
open class MLNeuralEngineComputeDevice {
    open var totalCoreCount: Int { fatalError() }
}
