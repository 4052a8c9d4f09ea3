// What the plan in Swift uses of Metal, as Apple documents it, for a type check where there is no Metal.
import Foundation

public struct MTLSize {
    public init(width: Int, height: Int, depth: Int) {}
}
public struct MTLResourceOptions: OptionSet, Sendable {
    public let rawValue: UInt
    public init(rawValue: UInt) { self.rawValue = rawValue }
    public static let storageModeShared = MTLResourceOptions([])
    public static let storageModePrivate = MTLResourceOptions(rawValue: 32)
}
public struct MTLPipelineOption: OptionSet, Sendable {
    public let rawValue: UInt
    public init(rawValue: UInt) { self.rawValue = rawValue }
}
public struct MTLBarrierScope: OptionSet, Sendable {
    public let rawValue: UInt
    public init(rawValue: UInt) { self.rawValue = rawValue }
    public static let buffers = MTLBarrierScope(rawValue: 1)
}
public struct MTLIndirectCommandType: OptionSet, Sendable {
    public let rawValue: UInt
    public init(rawValue: UInt) { self.rawValue = rawValue }
    public static let concurrentDispatch = MTLIndirectCommandType(rawValue: 32)
}
public enum MTLDispatchType { case serial, concurrent }
public class MTLCompileOptions {}
public class MTLComputePipelineReflection {}
public protocol MTLResource: AnyObject {}
public protocol MTLTexture: MTLResource {}
public protocol MTLBuffer: MTLResource {
    func contents() -> UnsafeMutableRawPointer
    var length: Int { get }
}
public protocol MTLFunction: AnyObject {}
public enum MTLDataType: UInt { case int = 29 }
public class MTLFunctionConstantValues {
    public init() {}
    public func setConstantValue(_ value: UnsafeRawPointer, type: MTLDataType, index: Int) {}
}
public protocol MTLLibrary: AnyObject {
    func makeFunction(name: String) -> MTLFunction?
    func makeFunction(name: String, constantValues: MTLFunctionConstantValues) throws -> MTLFunction
}
public protocol MTLComputePipelineState: AnyObject {}
public class MTLComputePipelineDescriptor {
    public init() {}
    public var computeFunction: MTLFunction?
    public var supportIndirectCommandBuffers = false
}
public class MTLIndirectCommandBufferDescriptor {
    public init() {}
    public var commandTypes: MTLIndirectCommandType = []
    public var inheritBuffers = true
    public var inheritPipelineState = true
    public var maxKernelBufferBindCount = 0
}
public protocol MTLIndirectComputeCommand: AnyObject {
    func setComputePipelineState(_ pipelineState: MTLComputePipelineState)
    func setKernelBuffer(_ buffer: MTLBuffer, offset: Int, at index: Int)
    func setBarrier()
    func concurrentDispatchThreadgroups(_ threadgroupsPerGrid: MTLSize, threadsPerThreadgroup: MTLSize)
}
public protocol MTLIndirectCommandBuffer: MTLResource {
    func indirectComputeCommandAt(_ commandIndex: Int) -> MTLIndirectComputeCommand
}
public protocol MTLComputeCommandEncoder: AnyObject {
    func setComputePipelineState(_ state: MTLComputePipelineState)
    func setTexture(_ texture: MTLTexture?, index: Int)
    func setBuffer(_ buffer: MTLBuffer?, offset: Int, index: Int)
    func memoryBarrier(scope: MTLBarrierScope)
    func dispatchThreadgroups(_ threadgroupsPerGrid: MTLSize, threadsPerThreadgroup: MTLSize)
    func endEncoding()
}
public protocol MTLCommandBuffer: AnyObject {
    func makeComputeCommandEncoder(dispatchType: MTLDispatchType) -> MTLComputeCommandEncoder?
    func commit()
    func waitUntilCompleted()
    var error: Error? { get }
}
public protocol MTLCommandQueue: AnyObject { func makeCommandBuffer() -> MTLCommandBuffer? }
public protocol MTLDevice: AnyObject {
    func makeLibrary(source: String, options: MTLCompileOptions?) throws -> MTLLibrary
    func makeComputePipelineState(
        descriptor: MTLComputePipelineDescriptor, options: MTLPipelineOption,
        reflection: UnsafeMutablePointer<MTLComputePipelineReflection?>?
    ) throws -> MTLComputePipelineState
    func makeBuffer(length: Int, options: MTLResourceOptions) -> MTLBuffer?
    func makeBuffer(bytes pointer: UnsafeRawPointer, length: Int, options: MTLResourceOptions) -> MTLBuffer?
    func makeIndirectCommandBuffer(
        descriptor: MTLIndirectCommandBufferDescriptor, maxCommandCount: Int, options: MTLResourceOptions
    ) -> MTLIndirectCommandBuffer?
    func makeCommandQueue() -> MTLCommandQueue?
}
public func MTLCreateSystemDefaultDevice() -> MTLDevice? { nil }
