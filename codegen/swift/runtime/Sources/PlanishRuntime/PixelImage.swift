/// A picture of 8 bits a channel, row by row: what models with image inputs take on any system.
public struct PixelImage: Sendable, Equatable {
    public enum Layout: Int, Sendable {
        case gray = 1
        case rgb = 3
    }

    public let width: Int
    public let height: Int
    public let layout: Layout
    /// `height * width` pixels, red first where there are three channels.
    public let pixels: [UInt8]

    /// - Throws: `InferenceError.malformedTensor` where there are not as many bytes as pixels.
    public init(width: Int, height: Int, layout: Layout = .rgb, pixels: [UInt8]) throws {
        guard width > 0, height > 0, pixels.count == width * height * layout.rawValue else {
            throw InferenceError.malformedTensor("\(pixels.count) bytes are no picture of \(width) × \(height)")
        }
        self.width = width
        self.height = height
        self.layout = layout
        self.pixels = pixels
    }

    /// The picture as engines take it: height × width × 3, or height × width.
    public var tensor: Tensor {
        Tensor(unchecked: .uint8, layout == .rgb ? [height, width, 3] : [height, width], pixels)
    }

    /// The picture in an engine's output: such a tensor, or planes of numbers from 0 to 255.
    ///
    /// - Parameter bgr: whether the planes have blue first.
    /// - Throws: `InferenceError.malformedTensor` where the tensor is no picture.
    public init(_ tensor: Tensor, bgr: Bool = false) throws {
        let shape = tensor.shape
        if tensor.elementType == .uint8, shape.count == 2 || (shape.count == 3 && shape[2] == 3) {
            try self.init(
                width: shape[1], height: shape[0], layout: shape.count == 2 ? .gray : .rgb, pixels: tensor.bytes)
            return
        }
        guard shape.count == 4, shape[0] == 1, let layout = Layout(rawValue: shape[1]) else {
            throw InferenceError.malformedTensor("\(tensor.elementType.rawValue)\(shape) is no picture")
        }
        let values: [Float] = try tensor.scalars()
        let size = shape[2] * shape[3]
        let channels = shape[1]
        var pixels = [UInt8](repeating: 0, count: size * channels)
        for channel in 0..<channels {
            let from = bgr ? channels - 1 - channel : channel
            for i in 0..<size {
                let value = values[from * size + i]
                pixels[i * channels + channel] = UInt8(max(0, min(255, value.isNaN ? 0 : value.rounded())))
            }
        }
        try self.init(width: shape[3], height: shape[2], layout: layout, pixels: pixels)
    }
}
