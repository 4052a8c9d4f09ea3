// What the runtime uses of the module os. Held against pages of
// https://developer.apple.com/documentation/os/ossignposter: begininterval(_:id:), which names makeSignpostID(),
// and endinterval(_:_:). Intervals that overlap need identifiers.
public struct OSSignpostID: Sendable {
    public static let exclusive = OSSignpostID()
}

public struct OSSignposter: @unchecked Sendable {
    public init(subsystem: String, category: String) {}
    public func makeSignpostID() -> OSSignpostID { fatalError() }
    public func beginInterval(_ name: StaticString, id: OSSignpostID = .exclusive) -> OSSignpostIntervalState {
        fatalError()
    }
    public func endInterval(_ name: StaticString, _ state: OSSignpostIntervalState) {}
}

public final class OSSignpostIntervalState: @unchecked Sendable {}
