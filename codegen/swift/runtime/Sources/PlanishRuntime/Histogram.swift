import Foundation

/// Counts positive numbers by size so that percentiles are within one percent, in memory that does not grow.
public struct Histogram: Sendable {
    /// Each bucket reaches to this multiple of its start.
    private static let step = 1.02
    private static let smallest = 1e-9
    private var buckets: [Int: Int] = [:]
    public private(set) var count = 0
    public private(set) var sum = 0.0
    public private(set) var minimum = Double.infinity
    public private(set) var maximum = 0.0

    public init() {}

    public mutating func record(_ value: Double) {
        let bucket = Int((log(max(value, Self.smallest) / Self.smallest) / log(Self.step)).rounded(.down))
        buckets[bucket, default: 0] += 1
        count += 1
        sum += value
        minimum = min(minimum, value)
        maximum = max(maximum, value)
    }

    public var mean: Double { count == 0 ? 0 : sum / Double(count) }

    /// The value that a share of all values does not exceed; 0 where there are none.
    ///
    /// - Parameter share: from 0 to 1; 0.99 for what is called p99.
    public func percentile(_ share: Double) -> Double {
        guard count > 0 else { return 0 }
        if share >= 1 { return maximum }
        let rank = max(1, Int((share * Double(count)).rounded(.up)))
        var seen = 0
        for bucket in buckets.keys.sorted() {
            seen += buckets[bucket] ?? 0
            if seen >= rank {
                let middle = Self.smallest * pow(Self.step, Double(bucket) + 0.5)
                return min(max(middle, minimum), maximum)
            }
        }
        return maximum
    }

    public mutating func merge(_ other: Histogram) {
        for (bucket, number) in other.buckets { buckets[bucket, default: 0] += number }
        count += other.count
        sum += other.sum
        minimum = min(minimum, other.minimum)
        maximum = max(maximum, other.maximum)
    }
}
