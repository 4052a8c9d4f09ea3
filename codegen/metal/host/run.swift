// Runs a package of kernels on the GPU and compares with what is expected: `run PACKAGE CASE`.
//
// CASE is a folder with NAME.in for every input and NAME.out for every output, elements as they lie in buffers.
// Prints the relative L2 error of each output; the status is 1 if one is above the limit, 2 if nothing could be run.

import Foundation
import Metal

struct Plan: Decodable {
    struct Buffer: Decodable {
        let name: String
        let kind: String
        let store: String
        let shape: [Int]
        let offset: Int
    }
    struct Binding: Decodable { let buffer: Int }
    struct Dispatch: Decodable {
        let kernel: String
        let groups: Int
        let threads: Int
        let bindings: [Binding]
        let wait: Bool
        let variant: Variant?
    }
    struct Variant: Decodable {
        struct Constant: Decodable {
            let index: Int
            let value: Int32
        }
        let function: String
        let constants: [Constant]
    }
    let heap: Int
    let buffers: [Buffer]
    let dispatches: [Dispatch]
}

struct Failure: Error, CustomStringConvertible { let description: String }

let elementBytes = ["float": 4, "half": 2, "int": 4, "bool": 1, "char": 1, "uchar": 1]

func numbers(_ bytes: Data, _ store: String) -> [Double] {
    func all<T, U>(_ type: T.Type, _ convert: (T) -> U) -> [U] {
        bytes.withUnsafeBytes { raw in
            (0..<raw.count / MemoryLayout<T>.stride).map {
                convert(raw.loadUnaligned(fromByteOffset: $0 * MemoryLayout<T>.stride, as: T.self))
            }
        }
    }
    switch store {
    case "float": return all(Float.self) { Double($0) }
    case "int": return all(Int32.self) { Double($0) }
    case "char": return all(Int8.self) { Double($0) }
    case "half": return all(UInt16.self) { half($0) }
    default: return all(UInt8.self) { Double($0) }
    }
}

/// A half by its bits.
func half(_ bits: UInt16) -> Double {
    let sign = bits >> 15 == 0 ? 1.0 : -1.0
    let exponent = Int(bits >> 10 & 31)
    let fraction = Double(bits & 1023) / 1024
    if exponent == 31 { return fraction == 0 ? sign * .infinity : .nan }
    return exponent == 0 ? sign * fraction * pow(2, -14) : sign * (1 + fraction) * pow(2, Double(exponent - 15))
}

func relativeError(_ ours: [Double], _ theirs: [Double]) -> Double {
    let difference = zip(ours, theirs).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
    let size = theirs.reduce(0) { $0 + $1 * $1 }
    return (difference / max(size, 1e-30)).squareRoot()
}

func run(package: URL, cases: URL, limit: Double) throws -> Bool {
    guard let device = MTLCreateSystemDefaultDevice(), let queue = device.makeCommandQueue() else {
        throw Failure(description: "there is no GPU here")
    }
    let plan = try JSONDecoder().decode(
        Plan.self, from: Data(contentsOf: package.appendingPathComponent("plan.json")))
    let source = try String(contentsOf: package.appendingPathComponent("kernels.metal"), encoding: .utf8)
    let library = try device.makeLibrary(source: source, options: nil)
    let weights = try Data(contentsOf: package.appendingPathComponent("weights.bin"))

    func buffer(_ bytes: Data) throws -> MTLBuffer {
        let made = bytes.withUnsafeBytes {
            device.makeBuffer(bytes: $0.baseAddress!, length: bytes.count, options: .storageModeShared)
        }
        guard let made else { throw Failure(description: "no buffer of \(bytes.count) bytes") }
        return made
    }

    let constants = try buffer(weights.isEmpty ? Data(count: 1) : weights)
    let heap = try buffer(Data(count: max(plan.heap, 1)))
    let buffers: [(MTLBuffer, Int)] = try plan.buffers.map { b in
        let size = b.shape.reduce(elementBytes[b.store]!, *)
        switch b.kind {
        case "constant": return (constants, b.offset)
        case "scratch": return (heap, b.offset)
        case "input": return (try buffer(Data(contentsOf: cases.appendingPathComponent("\(b.name).in"))), 0)
        default: return (try buffer(Data(count: max(size, 1))), 0)
        }
    }
    guard let commands = queue.makeCommandBuffer(),
        let encoder = commands.makeComputeCommandEncoder(dispatchType: .concurrent)
    else { throw Failure(description: "no command buffer") }
    for step in plan.dispatches {
        let descriptor = MTLComputePipelineDescriptor()
        if let variant = step.variant {
            let values = MTLFunctionConstantValues()
            for constant in variant.constants {
                var value = constant.value
                values.setConstantValue(&value, type: .int, index: constant.index)
            }
            descriptor.computeFunction = try library.makeFunction(name: variant.function, constantValues: values)
        } else {
            descriptor.computeFunction = library.makeFunction(name: step.kernel)
        }
        let pipeline = try device.makeComputePipelineState(descriptor: descriptor, options: [], reflection: nil)
        if step.wait { encoder.memoryBarrier(scope: .buffers) }
        encoder.setComputePipelineState(pipeline)
        for (slot, binding) in step.bindings.enumerated() {
            let (buffer, offset) = buffers[binding.buffer]
            encoder.setBuffer(buffer, offset: offset, index: slot)
        }
        encoder.dispatchThreadgroups(
            MTLSize(width: step.groups, height: 1, depth: 1),
            threadsPerThreadgroup: MTLSize(width: step.threads, height: 1, depth: 1))
    }
    encoder.endEncoding()
    commands.commit()
    commands.waitUntilCompleted()
    if let error = commands.error { throw error }

    var good = true
    for (b, (buffer, _)) in zip(plan.buffers, buffers) where b.kind == "output" {
        let expected = try Data(contentsOf: cases.appendingPathComponent("\(b.name).out"))
        let ours = Data(bytes: buffer.contents(), count: min(expected.count, buffer.length))
        let error = relativeError(numbers(ours, b.store), numbers(expected, b.store))
        print("\(package.lastPathComponent) \(b.name) \(error)")
        good = good && error <= limit
    }
    return good
}

@main
struct Main {
    static func main() {
        let arguments = CommandLine.arguments
        guard arguments.count >= 3 else {
            print("run PACKAGE CASE [LIMIT]")
            exit(2)
        }
        do {
            let limit = arguments.count > 3 ? Double(arguments[3]) ?? 1e-4 : 1e-4
            let good = try run(
                package: URL(fileURLWithPath: arguments[1]), cases: URL(fileURLWithPath: arguments[2]), limit: limit)
            exit(good ? 0 : 1)
        } catch {
            print("error: \(error)")
            exit(2)
        }
    }
}
