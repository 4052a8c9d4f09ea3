import Foundation

#if canImport(CryptoKit)
import CryptoKit
#endif

/// Names content by what it is: the SHA-256 of a file, of a folder's files and their names, or of a text.
public enum ContentHash {
    /// The hash of a package, as Planish computes it: of `path NUL hash newline` for every file, by path.
    ///
    /// Files that have size, time and number as when they were last read are not read again.
    public static func of(package: URL) throws -> String {
        let files = try listed(package)
        let stamp = files.map { "\($0.path)\0\($0.stamp)" }.joined(separator: "\n")
        let key = package.standardizedFileURL.path
        if let known = memory.withLock({ $0[key] }), known.stamp == stamp { return known.hash }
        var lines = ""
        for file in files {
            lines += "\(file.path)\0\(hex(sha256(try Data(contentsOf: file.url, options: .alwaysMapped))))\n"
        }
        let hash = hex(sha256(Data(lines.utf8)))
        memory.withLock { $0[key] = (stamp, hash) }
        return hash
    }

    /// The 32 bytes of a SHA-256.
    public static func sha256(_ data: Data) -> [UInt8] {
        #if canImport(CryptoKit)
        return [UInt8](SHA256.hash(data: data))
        #else
        return portableSHA256(data)
        #endif
    }

    public static func hex(_ bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    /// The bytes of all files in a package.
    public static func byteCount(of package: URL) throws -> Int { try listed(package).reduce(0) { $0 + $1.size } }

    private static let memory = Locked<[String: (stamp: String, hash: String)]>([:])

    private struct File {
        let path: String
        let url: URL
        let size: Int
        let stamp: String
    }

    private static func listed(_ package: URL) throws -> [File] {
        let manager = FileManager.default
        var out: [File] = []
        for path in try manager.subpathsOfDirectory(atPath: package.path) {
            let url = package.appendingPathComponent(path)
            let facts = try manager.attributesOfItem(atPath: url.path)
            guard facts[.type] as? FileAttributeType == .typeRegular else { continue }
            let size = (facts[.size] as? NSNumber)?.intValue ?? 0
            let time = (facts[.modificationDate] as? Date)?.timeIntervalSince1970 ?? 0
            let number = (facts[.systemFileNumber] as? NSNumber)?.intValue ?? 0
            out.append(File(path: path, url: url, size: size, stamp: "\(size) \(time) \(number)"))
        }
        // By Unicode scalars, as Python sorts.
        return out.sorted { $0.path.unicodeScalars.lexicographicallyPrecedes($1.path.unicodeScalars) }
    }
}

/// SHA-256 as FIPS 180-4 has it, for where there is no CryptoKit.
func portableSHA256(_ data: Data) -> [UInt8] {
    var hash: [UInt32] = [
        0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
    ]
    var rest = [UInt8](data.suffix(data.count % 64))
    let bits = UInt64(data.count) * 8
    rest.append(0x80)
    while rest.count % 64 != 56 { rest.append(0) }
    withUnsafeBytes(of: bits.bigEndian) { rest += $0 }
    var words = [UInt32](repeating: 0, count: 64)
    func blocks(_ bytes: UnsafeRawBufferPointer) {
        for start in stride(from: 0, to: bytes.count / 64 * 64, by: 64) {
            for i in 0..<16 {
                words[i] = UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: start + 4 * i, as: UInt32.self))
            }
            compress(&hash, &words)
        }
    }
    data.withUnsafeBytes { blocks($0) }
    rest.withUnsafeBytes { blocks($0) }
    return hash.flatMap { word in withUnsafeBytes(of: word.bigEndian) { [UInt8]($0) } }
}

private func compress(_ hash: inout [UInt32], _ w: inout [UInt32]) {
    func turned(_ x: UInt32, _ by: UInt32) -> UInt32 { x >> by | x << (32 - by) }
    for i in 16..<64 {
        let s0 = turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ w[i - 15] >> 3
        let s1 = turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ w[i - 2] >> 10
        w[i] = w[i - 16] &+ s0 &+ w[i - 7] &+ s1
    }
    var (a, b, c, d) = (hash[0], hash[1], hash[2], hash[3])
    var (e, f, g, h) = (hash[4], hash[5], hash[6], hash[7])
    for i in 0..<64 {
        let s1 = turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)
        let first = h &+ s1 &+ ((e & f) ^ (~e & g)) &+ roundConstants[i] &+ w[i]
        let s0 = turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)
        let second = s0 &+ ((a & b) ^ (a & c) ^ (b & c))
        (h, g, f, e, d, c, b, a) = (g, f, e, d &+ first, c, b, a, first &+ second)
    }
    for (i, value) in [a, b, c, d, e, f, g, h].enumerated() { hash[i] &+= value }
}

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
private let roundConstants: [UInt32] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
]
