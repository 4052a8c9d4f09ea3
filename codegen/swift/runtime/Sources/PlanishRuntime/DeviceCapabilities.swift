import Foundation

#if canImport(CoreML)
import CoreML
#endif
#if canImport(Metal)
import Metal
#endif

/// What this device has to compute with, as far as its system says.
public struct DeviceCapabilities: Sendable, Codable, Equatable {
    public var system: String
    public var version: String
    public var processorCount: Int
    public var physicalMemory: UInt64
    /// Cores of the Neural Engine; 0 where there is none, nil where the system does not say.
    public var neuralEngineCores: Int?
    public var gpuName: String?
    /// The newest family of Apple GPUs that the GPU belongs to: 5 for A12, 6 for A13, 7 for A14 and M1 …
    public var appleGPUFamily: Int?

    public init(
        system: String, version: String, processorCount: Int, physicalMemory: UInt64, neuralEngineCores: Int? = nil,
        gpuName: String? = nil, appleGPUFamily: Int? = nil
    ) {
        self.system = system
        self.version = version
        self.processorCount = processorCount
        self.physicalMemory = physicalMemory
        self.neuralEngineCores = neuralEngineCores
        self.gpuName = gpuName
        self.appleGPUFamily = appleGPUFamily
    }

    /// Of the device that this runs on.
    public static var current: DeviceCapabilities {
        let process = ProcessInfo.processInfo
        let version = process.operatingSystemVersion
        #if os(iOS)
        let system = "iOS"
        #elseif os(macOS)
        let system = "macOS"
        #elseif os(Linux)
        let system = "Linux"
        #else
        let system = "other"
        #endif
        var out = DeviceCapabilities(
            system: system, version: "\(version.majorVersion).\(version.minorVersion).\(version.patchVersion)",
            processorCount: process.processorCount, physicalMemory: process.physicalMemory)
        #if canImport(CoreML)
        if #available(iOS 17, macOS 14, *) {
            out.neuralEngineCores = 0
            for device in MLComputeDevice.allComputeDevices {
                if case .neuralEngine(let engine) = device { out.neuralEngineCores = engine.totalCoreCount }
            }
        }
        #endif
        #if canImport(Metal)
        if let gpu = MTLCreateSystemDefaultDevice() {
            out.gpuName = gpu.name
            let families: [(Int, MTLGPUFamily)] = [
                (9, .apple9), (8, .apple8), (7, .apple7), (6, .apple6), (5, .apple5), (4, .apple4),
            ]
            out.appleGPUFamily = families.first { gpu.supportsFamily($0.1) }?.0
        }
        #endif
        return out
    }
}

/// The units that a model may run on, as Core ML groups them.
public enum ComputeUnits: String, Sendable, Codable, CaseIterable {
    case all
    case cpuAndNeuralEngine
    case cpuAndGPU
    case cpuOnly

    /// The units to try, the best first: what was wished for, then what is left, as far as the device has it.
    public static func order(wished: ComputeUnits, on device: DeviceCapabilities) -> [ComputeUnits] {
        let behind: [ComputeUnits] =
            switch wished {
            case .all: [.all, .cpuAndGPU, .cpuOnly]
            case .cpuAndNeuralEngine: [.cpuAndNeuralEngine, .cpuAndGPU, .cpuOnly]
            case .cpuAndGPU: [.cpuAndGPU, .cpuOnly]
            case .cpuOnly: [.cpuOnly]
            }
        return behind.filter { units in
            switch units {
            case .cpuAndNeuralEngine: device.neuralEngineCores != 0
            case .cpuAndGPU: device.gpuName != nil
            case .all, .cpuOnly: true
            }
        }
    }
}

/// A model on the best units on which it could be loaded.
public struct Placed<Engine: Sendable>: Sendable {
    public let engine: Engine
    public let units: ComputeUnits
    /// Why it does not run on the units that were tried before.
    public let refusals: [(units: ComputeUnits, reason: any Error)]
}

/// Loads a model on the first units that take it.
///
/// - Throws: what the last units threw, where none takes it; `CancellationError`.
public func loadWithFallback<Engine: Sendable>(
    wished: ComputeUnits, on device: DeviceCapabilities = .current,
    load: (ComputeUnits) async throws -> Engine
) async throws -> Placed<Engine> {
    var refusals: [(units: ComputeUnits, reason: any Error)] = []
    for units in ComputeUnits.order(wished: wished, on: device) {
        try Task.checkCancellation()
        do {
            return Placed(engine: try await load(units), units: units, refusals: refusals)
        } catch let error as CancellationError {
            throw error
        } catch {
            refusals.append((units, error))
        }
    }
    throw refusals.last?.reason ?? InferenceError.unsupported("no compute units to load on")
}
