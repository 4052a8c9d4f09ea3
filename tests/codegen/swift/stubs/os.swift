// What the runtime uses of the module os. Sources: https://developer.apple.com/documentation/os/ossignposter/ +
// begininterval(_:id:), endinterval(_:_:), makesignpostid(). Intervals that overlap need identifiers of their own.
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
