#if canImport(CoreVideo)
import CoreVideo

extension PixelImage {
    /// A picture from a pixel buffer of 32-bit BGRA, or of one component of 8 bits or a half (0 to 255).
    public init(_ buffer: CVPixelBuffer) throws {
        let format = CVPixelBufferGetPixelFormatType(buffer)
        let known = [
            kCVPixelFormatType_32BGRA, kCVPixelFormatType_OneComponent8, kCVPixelFormatType_OneComponent16Half,
        ]
        guard known.contains(format) else {
            throw InferenceError.unsupported("pixel buffers must be of 32BGRA, OneComponent8 or OneComponent16Half")
        }
        guard CVPixelBufferLockBaseAddress(buffer, .readOnly) == kCVReturnSuccess else {
            throw InferenceError.malformedTensor("the pixel buffer cannot be locked")
        }
        defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
        let (width, height) = (CVPixelBufferGetWidth(buffer), CVPixelBufferGetHeight(buffer))
        let row = CVPixelBufferGetBytesPerRow(buffer)
        guard let start = CVPixelBufferGetBaseAddress(buffer) else {
            throw InferenceError.malformedTensor("the pixel buffer has no memory")
        }
        let bytes = UnsafeRawBufferPointer(start: start, count: row * height)
        let gray = format != kCVPixelFormatType_32BGRA
        var pixels: [UInt8] = []
        pixels.reserveCapacity(width * height * (gray ? 1 : 3))
        for y in 0..<height {
            for x in 0..<width {
                switch format {
                case kCVPixelFormatType_OneComponent8: pixels.append(bytes[y * row + x])
                case kCVPixelFormatType_OneComponent16Half:
                    let bits = bytes.loadUnaligned(fromByteOffset: y * row + 2 * x, as: UInt16.self)
                    pixels.append(HalfByte.byte(of: bits))
                default: for channel in [2, 1, 0] { pixels.append(bytes[y * row + 4 * x + channel]) }
                }
            }
        }
        try self.init(width: width, height: height, layout: gray ? .gray : .rgb, pixels: pixels)
    }

    /// A pixel buffer of 32-bit BGRA, or of one component of 8 bits.
    ///
    /// - Parameter half: whether the one component is a half, as models take it whose image is `GRAYSCALE_FLOAT16`.
    public func makePixelBuffer(half: Bool = false) throws -> CVPixelBuffer {
        let gray = layout == .gray
        var made: CVPixelBuffer?
        let one = half ? kCVPixelFormatType_OneComponent16Half : kCVPixelFormatType_OneComponent8
        let format = gray ? one : kCVPixelFormatType_32BGRA
        guard CVPixelBufferCreate(nil, width, height, format, nil, &made) == kCVReturnSuccess, let buffer = made,
            CVPixelBufferLockBaseAddress(buffer, []) == kCVReturnSuccess
        else { throw InferenceError.malformedTensor("no pixel buffer of \(width) × \(height)") }
        defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
        let row = CVPixelBufferGetBytesPerRow(buffer)
        guard let start = CVPixelBufferGetBaseAddress(buffer) else {
            throw InferenceError.malformedTensor("the pixel buffer has no memory")
        }
        let bytes = UnsafeMutableRawBufferPointer(start: start, count: row * height)
        for y in 0..<height {
            for x in 0..<width {
                if gray, half {
                    let bits = HalfByte.bits(of: pixels[y * width + x])
                    bytes.storeBytes(of: bits, toByteOffset: y * row + 2 * x, as: UInt16.self)
                } else if gray {
                    bytes[y * row + x] = pixels[y * width + x]
                } else {
                    for channel in 0..<3 {
                        bytes[y * row + 4 * x + channel] = pixels[(y * width + x) * 3 + 2 - channel]
                    }
                    bytes[y * row + 4 * x + 3] = 255
                }
            }
        }
        return buffer
    }
}
#endif

/// Bytes as halves and back, also where Swift has no `Float16`.
enum HalfByte {
    /// The half of a number from 0 to 255: exact, since eleven bits hold it.
    static func bits(of byte: UInt8) -> UInt16 {
        if byte == 0 { return 0 }
        let exponent = 7 - byte.leadingZeroBitCount
        return UInt16(exponent + 15) << 10 | UInt16(byte) << (10 - exponent) & 0x3ff
    }

    /// The byte nearest to a half; 0 for what is below or not a number, 255 for what is above.
    static func byte(of bits: UInt16) -> UInt8 {
        let exponent = Int(bits >> 10 & 31)
        let fraction = Double(bits & 0x3ff) / 1024
        if bits >> 15 == 1 || exponent == 31 && fraction > 0 || exponent < 14 { return 0 }
        if exponent > 22 { return 255 }
        let scale = Double(1 << (exponent - 14)) / 2
        return UInt8(min(255, ((1 + fraction) * scale).rounded()))
    }
}
