// What the runtime uses of the module os, with the signatures that Apple's documentation gives.
public struct OSSignposter: @unchecked Sendable {
    public init(subsystem: String, category: String) {}
    public func beginInterval(_ name: StaticString) -> OSSignpostIntervalState { fatalError() }
    public func endInterval(_ name: StaticString, _ state: OSSignpostIntervalState) {}
}

public final class OSSignpostIntervalState: @unchecked Sendable {}
