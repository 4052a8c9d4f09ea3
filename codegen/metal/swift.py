"""The dispatch plan as Swift: the same dispatches, buffers and barriers for Metal's command encoders."""

from __future__ import annotations

import json
import re

from codegen.metal.program import Buffer, Program, Variant

_HEAD = """// Written by planish. Dispatches of {title} as Metal takes them; plan.json says the same.
//
//     let kernels = try {name}(device: device, package: url)
//     kernels.encode(into: encoder, buffers: [...]{given})       // a compute encoder of dispatch type .concurrent
//
{more}

import Foundation
import Metal

public final class {name} {{
    struct Step {{
        /// The function, or a name of its own for one whose function constants have other values.
        let kernel: String
        let groups: Int
        let threads: Int
        let buffers: [Int]
        let waits: Bool{textures}
    }}
{variants}
    /// Where a buffer of the plan lies.
    enum Place {{
        case given(String)
        case weights(Int)
        case scratch(Int)
    }}

    static let heapBytes = {heap}
"""

_HAS_INDIRECT = (
    """// `encodeIndirect` writes the same into an indirect command buffer, once, for `executeCommandsInBuffer`."""
)
_NO_INDIRECT = (
    "// Textures are of the picture's size, .rgba8Unorm or the like; those of outputs have the usage .shaderWrite.\n"
    "// Indirect command buffers take none."
)

_BODY = """
    public let device: MTLDevice
    let weights: MTLBuffer
    let scratch: MTLBuffer
    let pipelines: [String: MTLComputePipelineState]

    /// Loads `weights.bin` and compiles `kernels.metal` of a package.
    public init(device: MTLDevice, package: URL) throws {
        self.device = device
        let source = try String(contentsOf: package.appendingPathComponent("kernels.metal"), encoding: .utf8)
        let constants = try Data(contentsOf: package.appendingPathComponent("weights.bin"))
        let library = try device.makeLibrary(source: source, options: nil)
        var made: [String: MTLComputePipelineState] = [:]
        for step in Self.steps where made[step.kernel] == nil {
            let descriptor = MTLComputePipelineDescriptor()
            descriptor.computeFunction = @FUNCTION@
            descriptor.supportIndirectCommandBuffers = true
            made[step.kernel] = try device.makeComputePipelineState(
                descriptor: descriptor, options: [], reflection: nil)
        }
        pipelines = made
        let kept = constants.isEmpty ? Data(count: 1) : constants
        guard
            let filled = kept.withUnsafeBytes({
                device.makeBuffer(bytes: $0.baseAddress!, length: kept.count, options: .storageModeShared)
            }),
            let empty = device.makeBuffer(length: max(Self.heapBytes, 1), options: .storageModePrivate)
        else { throw CocoaError(.featureUnsupported) }
        weights = filled
        scratch = empty
    }

    /// The buffer of an index of the plan, and where in it. `buffers` has those of the caller by name.
    func place(_ index: Int, _ buffers: [String: MTLBuffer]) -> (MTLBuffer, Int) {
        switch Self.places[index] {
        case .given(let name):
            guard let buffer = buffers[name] else { preconditionFailure("no buffer is given for \\(name)") }
            return (buffer, 0)
        case .weights(let offset): return (weights, offset)
        case .scratch(let offset): return (scratch, offset)
        }
    }
"""

_VARIANTS = """
    /// A function of the library, and the values of its function constants by their index.
    struct Variant {
        let function: String
        let constants: [Int: Int32]
    }
"""

_FUNCTION = "library.makeFunction(name: step.kernel)"
_FUNCTION_OF_VARIANT = "try Self.function(step.kernel, library)"

_MAKE = """
    static func function(_ kernel: String, _ library: MTLLibrary) throws -> MTLFunction? {
        guard let variant = variants[kernel] else { return library.makeFunction(name: kernel) }
        let values = MTLFunctionConstantValues()
        for (index, value) in variant.constants {
            var value = value
            values.setConstantValue(&value, type: .int, index: index)
        }
        return try library.makeFunction(name: variant.function, constantValues: values)
    }
"""

_ENCODE = """
    /// Encodes all dispatches. The encoder is concurrent, and barriers stand where a dispatch must wait.
    public func encode(into encoder: MTLComputeCommandEncoder, buffers: [String: MTLBuffer]) {
        for step in Self.steps {
            if step.waits { encoder.memoryBarrier(scope: .buffers) }
            encoder.setComputePipelineState(pipelines[step.kernel]!)
            for (slot, index) in step.buffers.enumerated() {
                let (buffer, offset) = place(index, buffers)
                encoder.setBuffer(buffer, offset: offset, index: slot)
            }
            encoder.dispatchThreadgroups(
                MTLSize(width: step.groups, height: 1, depth: 1),
                threadsPerThreadgroup: MTLSize(width: step.threads, height: 1, depth: 1))
        }
    }
"""

_TEXTURES = """            for (slot, name) in step.textures.enumerated() {
                guard let texture = textures[name] else { preconditionFailure("no texture is given for \\(name)") }
                encoder.setTexture(texture, index: slot)
            }
"""

_INDIRECT = """
    /// An indirect command buffer of all dispatches on these buffers.
    public func encodeIndirect(buffers: [String: MTLBuffer]) -> MTLIndirectCommandBuffer? {
        let descriptor = MTLIndirectCommandBufferDescriptor()
        descriptor.commandTypes = .concurrentDispatch
        descriptor.inheritBuffers = false
        descriptor.inheritPipelineState = false
        descriptor.maxKernelBufferBindCount = Self.steps.map { $0.buffers.count }.max() ?? 1
        let count = Self.steps.count
        guard
            let made = device.makeIndirectCommandBuffer(
                descriptor: descriptor, maxCommandCount: count, options: [])
        else { return nil }
        for (i, step) in Self.steps.enumerated() {
            let command = made.indirectComputeCommandAt(i)
            command.setComputePipelineState(pipelines[step.kernel]!)
            for (slot, index) in step.buffers.enumerated() {
                let (buffer, offset) = place(index, buffers)
                command.setKernelBuffer(buffer, offset: offset, at: slot)
            }
            if step.waits { command.setBarrier() }
            command.concurrentDispatchThreadgroups(
                MTLSize(width: step.groups, height: 1, depth: 1),
                threadsPerThreadgroup: MTLSize(width: step.threads, height: 1, depth: 1))
        }
        return made
    }

    /// Every resource that dispatches touch, for `useResources` in front of `executeCommandsInBuffer`.
    public func resources(_ buffers: [String: MTLBuffer]) -> [MTLResource] {
        [weights, scratch] + Array(buffers.values)
    }
}
"""


#: The longest line, as in the sources of the Swift runtime.
_WIDTH = 120


def source(program: Program) -> str:
    """A Swift file with one class, which encodes the program."""
    words = re.findall(r"[A-Za-z0-9]+", program.name)
    name = "".join(w[0].upper() + w[1:] for w in words) or "Model"
    name = f"{'' if name[0].isalpha() else 'Model'}{name}Kernels"
    pictures = any(b.pixels for b in program.buffers)
    out = [
        _HEAD.format(
            title=program.name,
            name=name,
            heap=_number(program.heap),
            textures="\n        let textures: [String]" if pictures else "",
            given=", textures: [...]" if pictures else "",
            more=_NO_INDIRECT if pictures else _HAS_INDIRECT,
            variants=_VARIANTS if program.variants else "",
        )
    ]
    out.append("    static let places: [Place] = [")
    out += [f"        {_place(b)},  // {i}: {_shape(b)}" for i, b in enumerate(program.buffers)]
    out.append("    ]\n\n    static let steps: [Step] = [")
    comma = "," if len(program.dispatches) > 1 else ""  # as swift-format has it
    for i, d in enumerate(program.dispatches):
        bound = [(b.buffer, program.buffers[b.buffer]) for b in d.bindings]
        buffers = ", ".join(str(i) for i, b in bound if not b.pixels)
        waits = str(d.wait and i > 0).lower()
        sizes = f"groups: {_number(d.groups)}, threads: {d.threads}"
        step = f'kernel: "{d.kernel}", {sizes}, buffers: [{buffers}], waits: {waits}'
        if pictures:
            step += f", textures: [{', '.join(_string(b.name) for _, b in bound if b.pixels)}]"
        line = f"        Step({step}){comma}"
        out.append(line if len(line) <= _WIDTH else f"        Step(\n            {step}){comma}")
    out.append("    ]")
    if program.variants:
        out += ["", "    static let variants: [String: Variant] = [", *map(_variant, program.variants.items()), "    ]"]
    body = _BODY.replace("@FUNCTION@", _FUNCTION_OF_VARIANT if program.variants else _FUNCTION)
    text = "\n".join(out) + "\n" + body + (_MAKE if program.variants else "")
    if not pictures:
        return text + _ENCODE + _INDIRECT
    given = "buffers: [String: MTLBuffer]"
    encode = _ENCODE.replace(given, f"{given}, textures: [String: MTLTexture]", 1)
    before = "            encoder.dispatchThreadgroups("
    indirect = "            descriptor.supportIndirectCommandBuffers = true\n"
    return text.replace(indirect, "") + encode.replace(before, _TEXTURES + before) + "}\n"


def _variant(named: tuple[str, Variant]) -> str:
    kernel, variant = named
    values = ", ".join(f"{c.index}: {_number(c.value)}" for c in variant.constants)
    line = f'        "{kernel}": Variant(function: "{variant.function}", constants: [{values}]),'
    if len(line) <= _WIDTH:
        return line
    return f'        "{kernel}": Variant(\n            function: "{variant.function}", constants: [{values}]),'


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _number(value: int) -> str:
    """A literal, its digits in groups where there are many, as swift-format has it."""
    return f"{value:_}" if value >= 1_000_000 else str(value)


def _place(buffer: Buffer) -> str:
    if buffer.kind == "constant":
        return f".weights({_number(buffer.offset)})"
    if buffer.kind == "scratch":
        return f".scratch({_number(buffer.offset)})"
    return f".given({_string(buffer.name)})"


def _shape(buffer: Buffer) -> str:
    return f"{buffer.store} {' × '.join(map(str, buffer.shape)) or '1'}"
