#if os(macOS) || os(Linux)
import Foundation

/// An engine that runs a package in `planish serve`, on any machine: the evaluation that `compile` proves packages with.
///
/// The process is started at once and, when it ends unasked, again with the next request; what was asked of it in
/// between fails with `InferenceError.engineLost`. States die with their process.
public final class ProcessEngine: InferenceEngine {
    public struct Configuration: Sendable {
        /// The program and its arguments in front of `serve PKG`.
        public var command: [String]
        public var environment: [String: String]
        /// How many requests may be with the process; further ones wait, with their callers holding the inputs.
        public var inFlight = 64
        /// How many unasked ends within a minute are made good by a start.
        public var restarts = 5
        /// How many seconds a process may take to load the package.
        public var startTimeout = 120.0

        /// - Parameter command: the environment variable `PLANISH` says another, with blanks between its words.
        public init(
            command: [String]? = nil, environment: [String: String] = ProcessInfo.processInfo.environment
        ) {
            let said = environment["PLANISH"]?.split(separator: " ").map(String.init)
            self.command = command ?? said ?? ["planish"]
            self.environment = environment
        }
    }

    public let description: ModelDescription
    private let supervisor: Supervisor
    private let places: AsyncSemaphore

    /// Starts the process and waits until it has loaded the package.
    ///
    /// - Parameter function: which of the package's functions; its only one, or its default, where nil.
    /// - Throws: `InferenceError.engineUnavailable` with what the process said.
    public init(
        package: URL, function: String? = nil, configuration: Configuration = Configuration()
    ) async throws {
        let choice = function.map { ["--function", $0] } ?? []
        supervisor = Supervisor(arguments: ["serve", package.path] + choice, configuration)
        places = AsyncSemaphore(configuration.inFlight)
        description = try await supervisor.connection().ready()
    }

    deinit {
        Task { [supervisor] in await supervisor.shutdown() }
    }

    public func predict(_ inputs: Features) async throws -> Features {
        try description.check(inputs)
        return try await withPlace { try await self.supervisor.connection().ask(inputs).features }
    }

    public func predict(_ inputs: Features, state: any EngineState) async throws -> Features {
        guard let state = state as? ServedState else {
            throw InferenceError.unsupported("the state is one of another engine")
        }
        try description.check(inputs)
        return try await withPlace { try await state.connection.ask(state: state.number, inputs).features }
    }

    public func makeState() async throws -> any EngineState {
        guard !description.states.isEmpty else {
            throw InferenceError.unsupported("'\(description.name)' keeps no state")
        }
        let connection = try await supervisor.connection()
        guard let number = try await connection.ask(op: "open_state").reply.state else {
            throw InferenceError.protocolViolation("no number for a new state")
        }
        return ServedState(connection, number)
    }

    public func shutdown() async { await supervisor.shutdown() }

    /// How often the process was started.
    public var starts: Int { get async { await supervisor.starts } }

    /// How many requests are with the process.
    public var pendingCount: Int { get async { await supervisor.pendingCount } }

    /// The process that serves now; for tests that end it.
    public var processIdentifier: Int32? { get async { await supervisor.processIdentifier } }

    private func withPlace<Result: Sendable>(_ body: @Sendable () async throws -> Result) async throws -> Result {
        try await places.wait()
        defer { places.signal() }
        return try await body()
    }
}

/// A state inside a process; closed when nobody holds it any more.
private final class ServedState: EngineState {
    let connection: ServeConnection
    let number: Int

    init(_ connection: ServeConnection, _ number: Int) {
        self.connection = connection
        self.number = number
    }

    deinit { connection.tell(op: "close_state", state: number) }
}

/// Starts the process, and starts it again as often as it may be.
private actor Supervisor {
    private let arguments: [String]
    private let configuration: ProcessEngine.Configuration
    private var current: ServeConnection?
    private var closed = false
    private var recent: [ContinuousClock.Instant] = []
    private(set) var starts = 0

    init(arguments: [String], _ configuration: ProcessEngine.Configuration) {
        self.arguments = arguments
        self.configuration = configuration
    }

    var processIdentifier: Int32? { current?.processIdentifier }
    var pendingCount: Int { current?.pendingCount ?? 0 }

    /// The process as it runs, or a new one. Requests may be sent before it is ready.
    func connection() throws -> ServeConnection {
        if closed { throw InferenceError.closed }
        if let current, !current.hasEnded { return current }
        let now = ContinuousClock.now
        recent.removeAll { now - $0 > .seconds(60) }
        guard recent.count <= configuration.restarts else {
            throw InferenceError.engineUnavailable("it ended \(recent.count) times within a minute")
        }
        recent.append(now)
        starts += 1
        let words = configuration.command + arguments
        let started = try ServeConnection(
            words[0], Array(words.dropFirst()), environment: configuration.environment,
            startTimeout: configuration.startTimeout)
        current = started
        return started
    }

    func shutdown() {
        closed = true
        current?.close()
        current = nil
    }
}
#endif
