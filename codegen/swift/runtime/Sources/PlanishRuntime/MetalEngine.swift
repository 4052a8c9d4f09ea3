#if canImport(Metal)
import Foundation
import Metal

/// Runs a `.metalpackage` on the GPU: compiles its kernels, follows its plan.
///
/// One prediction at a time, since all share the heap.
public actor MetalEngine: InferenceEngine {
    public nonisolated let description: ModelDescription
    private let plan: MetalPlan
    private let device: any MTLDevice
    private let queue: any MTLCommandQueue
    private let pipelines: [String: any MTLComputePipelineState]
    private let weights: any MTLBuffer
    private let heap: any MTLBuffer
    private let turn = AsyncSemaphore(1)

    /// - Throws: `InferenceError.unsupported` where there is no GPU or the plan is broken; what Metal's compiler throws.
    public init(package: URL) throws {
        guard let device = MTLCreateSystemDefaultDevice(), let queue = device.makeCommandQueue() else {
            throw InferenceError.unsupported("there is no GPU that runs Metal")
        }
        let plan = try MetalPlan(package: package)
        let source = try String(contentsOf: package.appendingPathComponent("kernels.metal"), encoding: .utf8)
        let library = try device.makeLibrary(source: source, options: nil)
        var pipelines: [String: any MTLComputePipelineState] = [:]
        for dispatch in plan.dispatches where pipelines[dispatch.kernel] == nil {
            guard let function = try Self.function(of: dispatch, in: library) else {
                throw InferenceError.unsupported("there is no kernel '\(dispatch.kernel)'")
            }
            pipelines[dispatch.kernel] = try device.makeComputePipelineState(function: function)
        }
        let data = try Data(contentsOf: package.appendingPathComponent("weights.bin"))
        self.weights = try Self.buffer(device, [UInt8](data))
        self.heap = try Self.buffer(device, count: plan.heap, .storageModePrivate)
        self.plan = plan
        self.device = device
        self.queue = queue
        self.pipelines = pipelines
        description = plan.description
    }

    private static func function(
        of dispatch: MetalPlan.Dispatch, in library: any MTLLibrary
    ) throws -> (any MTLFunction)? {
        guard let variant = dispatch.variant else { return library.makeFunction(name: dispatch.kernel) }
        let values = MTLFunctionConstantValues()
        for constant in variant.constants {
            var value = constant.value
            values.setConstantValue(&value, type: .int, index: constant.index)
        }
        return try library.makeFunction(name: variant.function, constantValues: values)
    }

    public func predict(_ inputs: Features) async throws -> Features {
        try description.check(inputs)
        try await turn.wait()
        defer { turn.signal() }
        var memory: [any MTLBuffer] = []
        for buffer in plan.buffers {
            switch buffer.kind {
            case "constant": memory.append(weights)
            case "scratch": memory.append(heap)
            case "input":
                let stored = try given(inputs, buffer)
                memory.append(try Self.buffer(device, stored.bytes))
            default: memory.append(try Self.buffer(device, count: buffer.byteCount, .storageModeShared))
            }
        }
        try await run(memory)
        var out = Features()
        for (index, buffer) in plan.buffers.enumerated() where buffer.kind == "output" {
            guard let stored = buffer.elementType, let declared = ElementType(rawValue: buffer.declared) else {
                throw InferenceError.unsupported("output '\(buffer.name)' is \(buffer.declared)")
            }
            var (shape, count) = (buffer.shape, buffer.byteCount)
            if let rows = buffer.rows, rows >= 0, let most = shape.first, most > 0 {
                shape[0] = min(Int(memory[rows].contents().load(as: Int32.self)), most)
                count = count / most * shape[0]
            }
            let bytes = [UInt8](UnsafeRawBufferPointer(start: memory[index].contents(), count: count))
            out.tensors[buffer.name] =
                try Tensor(elementType: stored, shape: shape, bytes: bytes).converted(to: declared)
        }
        return out
    }

    private func given(_ inputs: Features, _ buffer: MetalPlan.Buffer) throws -> Tensor {
        guard let type = buffer.elementType, let tensor = inputs.tensors[buffer.name] else {
            throw InferenceError.missingInput(buffer.name)
        }
        return try tensor.converted(to: type)
    }

    private func run(_ memory: [any MTLBuffer]) async throws {
        guard let commands = queue.makeCommandBuffer(),
            let encoder = commands.makeComputeCommandEncoder(dispatchType: .concurrent)
        else { throw InferenceError.evaluation("Metal gives no command buffer") }
        for dispatch in plan.dispatches {
            guard let pipeline = pipelines[dispatch.kernel] else { continue }
            if dispatch.wait { encoder.memoryBarrier(scope: .buffers) }
            encoder.setComputePipelineState(pipeline)
            for (place, binding) in dispatch.bindings.enumerated() {
                let buffer = plan.buffers[binding.buffer]
                let shared = buffer.kind == "constant" || buffer.kind == "scratch"
                encoder.setBuffer(memory[binding.buffer], offset: shared ? buffer.offset : 0, index: place)
            }
            encoder.dispatchThreadgroups(
                MTLSize(width: dispatch.groups, height: 1, depth: 1),
                threadsPerThreadgroup: MTLSize(width: dispatch.threads, height: 1, depth: 1))
        }
        encoder.endEncoding()
        let failure: String? = await withCheckedContinuation { continuation in
            commands.addCompletedHandler { done in
                continuation.resume(
                    returning: done.status == .error ? done.error?.localizedDescription ?? "unknown" : nil)
            }
            commands.commit()
        }
        if let failure { throw InferenceError.evaluation(failure) }
    }

    private static func buffer(_ device: any MTLDevice, _ bytes: [UInt8]) throws -> any MTLBuffer {
        guard !bytes.isEmpty else { return try buffer(device, count: 0, .storageModeShared) }
        let made = bytes.withUnsafeBytes { given in
            given.baseAddress.flatMap {
                device.makeBuffer(bytes: $0, length: given.count, options: .storageModeShared)
            }
        }
        guard let made else { throw InferenceError.evaluation("no memory for a buffer of \(bytes.count) bytes") }
        return made
    }

    /// Metal makes no empty buffers.
    private static func buffer(
        _ device: any MTLDevice, count: Int, _ options: MTLResourceOptions
    ) throws -> any MTLBuffer {
        guard let made = device.makeBuffer(length: max(count, 16), options: options) else {
            throw InferenceError.evaluation("no memory for a buffer of \(count) bytes")
        }
        return made
    }
}
#endif
