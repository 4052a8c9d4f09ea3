// What the runtime uses of Metal. Held against pages of https://developer.apple.com/documentation/metal:
// mtlbuffer, mtlcommandbufferhandler, mtlcommandbuffer/addcompletedhandler(_:),
// mtlcomputecommandencoder/memorybarrier(scope:), and by selector against docs.rs/objc2-metal, generated from the
// headers: setComputePipelineState, setBuffer. From memory: the rest. Apple marks more of this as Sendable; the
// runtime must do without.
import Foundation

public protocol MTLDevice: AnyObject {
    var name: String { get }
    func supportsFamily(_ gpuFamily: MTLGPUFamily) -> Bool
    func makeCommandQueue() -> (any MTLCommandQueue)?
    func makeLibrary(source: String, options: MTLCompileOptions?) throws -> any MTLLibrary
    func makeComputePipelineState(function computeFunction: any MTLFunction) throws -> any MTLComputePipelineState
    func makeBuffer(length: Int, options: MTLResourceOptions) -> (any MTLBuffer)?
    func makeBuffer(bytes pointer: UnsafeRawPointer, length: Int, options: MTLResourceOptions) -> (any MTLBuffer)?
}

public func MTLCreateSystemDefaultDevice() -> (any MTLDevice)? { fatalError() }

public enum MTLGPUFamily: Int, Sendable {
    case apple1 = 1001, apple2, apple3, apple4, apple5, apple6, apple7, apple8, apple9
}

open class MTLCompileOptions {}

public struct MTLResourceOptions: OptionSet, Sendable {
    public let rawValue: UInt
    public init(rawValue: UInt) { self.rawValue = rawValue }
    public static let storageModeShared = MTLResourceOptions([])
    public static let storageModePrivate = MTLResourceOptions(rawValue: 32)
}

public protocol MTLLibrary: AnyObject {
    func makeFunction(name functionName: String) -> (any MTLFunction)?
    func makeFunction(name: String, constantValues: MTLFunctionConstantValues) throws -> any MTLFunction
}

public enum MTLDataType: UInt, Sendable {
    case int = 29
}

open class MTLFunctionConstantValues {
    public init() {}
    open func setConstantValue(_ value: UnsafeRawPointer, type: MTLDataType, index: Int) {}
}

public protocol MTLFunction: AnyObject {}
public protocol MTLComputePipelineState: AnyObject {}

public protocol MTLResource: AnyObject {}

public protocol MTLBuffer: MTLResource {
    func contents() -> UnsafeMutableRawPointer
}

public protocol MTLCommandQueue: AnyObject {
    func makeCommandBuffer() -> (any MTLCommandBuffer)?
}

public enum MTLCommandBufferStatus: UInt, Sendable {
    case notEnqueued, enqueued, committed, scheduled, completed, error
}

public enum MTLDispatchType: UInt, Sendable {
    case serial, concurrent
}

public typealias MTLCommandBufferHandler = @Sendable (any MTLCommandBuffer) -> Void

public protocol MTLCommandBuffer: AnyObject {
    var status: MTLCommandBufferStatus { get }
    var error: (any Error)? { get }
    func makeComputeCommandEncoder(dispatchType: MTLDispatchType) -> (any MTLComputeCommandEncoder)?
    func addCompletedHandler(_ block: @escaping MTLCommandBufferHandler)
    func commit()
}

public struct MTLBarrierScope: OptionSet, Sendable {
    public let rawValue: UInt
    public init(rawValue: UInt) { self.rawValue = rawValue }
    public static let buffers = MTLBarrierScope(rawValue: 1)
}

public struct MTLSize: Sendable {
    public init(width: Int, height: Int, depth: Int) {}
}

public protocol MTLComputeCommandEncoder: AnyObject {
    func setComputePipelineState(_ state: any MTLComputePipelineState)
    func setBuffer(_ buffer: (any MTLBuffer)?, offset: Int, index: Int)
    func dispatchThreadgroups(_ threadgroupsPerGrid: MTLSize, threadsPerThreadgroup: MTLSize)
    func memoryBarrier(scope: MTLBarrierScope)
    func endEncoding()
}
