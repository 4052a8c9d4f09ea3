#if os(macOS) || os(Linux)
import Foundation

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// A process with pipes to its input and from its output and errors.
///
/// It is started by `posix_spawn` and waited for by whoever reads its output, so that none is left behind as a zombie;
/// Foundation's `Process` depends on run loops for that.
final class ChildProcess: Sendable {
    let input: Int32
    let output: Int32
    let errors: Int32
    private let life: Locked<(pid: pid_t, reaped: Bool)>

    /// - Throws: `InferenceError.engineUnavailable` where it cannot be started.
    init(_ executable: String, _ arguments: [String], environment: [String: String]) throws {
        var pipes: [[Int32]] = []
        func closeAll() { for end in pipes.joined() { close(end) } }
        for _ in 0..<3 {
            var ends: [Int32] = [-1, -1]
            guard pipe(&ends) == 0 else {
                let reason = String(cString: strerror(errno))
                closeAll()
                throw InferenceError.engineUnavailable("no pipe: \(reason)")
            }
            for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
            pipes.append(ends)
        }
        #if canImport(Glibc)
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        #else
        var actions: posix_spawn_file_actions_t?
        var attributes: posix_spawnattr_t?
        #endif
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        posix_spawn_file_actions_adddup2(&actions, pipes[0][0], 0)
        posix_spawn_file_actions_adddup2(&actions, pipes[1][1], 1)
        posix_spawn_file_actions_adddup2(&actions, pipes[2][1], 2)
        // Whatever signals this thread holds back, the process must hear them.
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        #if canImport(Darwin)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_CLOEXEC_DEFAULT))
        #else
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        #endif
        let argv: [UnsafeMutablePointer<CChar>?] = ([executable] + arguments).map { strdup($0) } + [nil]
        let envp: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0)=\($1)") } + [nil]
        defer { for text in argv + envp { free(text) } }
        var pid: pid_t = 0
        let code = posix_spawnp(&pid, executable, &actions, &attributes, argv, envp)
        guard code == 0 else {
            closeAll()
            throw InferenceError.engineUnavailable("\(executable): \(String(cString: strerror(code)))")
        }
        for end in [pipes[0][0], pipes[1][1], pipes[2][1]] { close(end) }
        input = pipes[0][1]
        output = pipes[1][0]
        errors = pipes[2][0]
        life = Locked((pid, false))
    }

    var identifier: Int32 { life.withLock { $0.pid } }

    /// Sends a signal, unless the process has ended and was waited for.
    func signal(_ number: Int32) {
        life.withLock { if !$0.reaped { _ = kill($0.pid, number) } }
    }

    /// Waits for the end, by force after `patience` seconds. Blocks its thread.
    ///
    /// - Returns: how it ended, for people.
    func reap(patience: Double) -> String {
        let end = Date(timeIntervalSinceNow: patience)
        var status: Int32 = 0
        while true {
            let found = life.withLock { life -> pid_t in
                let found = waitpid(life.pid, &status, WNOHANG)
                if found != 0 { life.reaped = true }
                return found
            }
            if found > 0 { break }
            if found < 0 { return "the process is gone" }
            if Date() > end { signal(SIGKILL) }
            usleep(2000)
        }
        let number = status & 0x7f
        return number == 0 ? "exit code \((status >> 8) & 0xff)" : "signal \(number)"
    }

    /// Reads `count` bytes; fewer where the stream ends. Blocks its thread.
    static func read(_ file: Int32, _ count: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            filled = 0
            while filled < count, let start = buffer.baseAddress {
                #if canImport(Glibc)
                let got = Glibc.read(file, start + filled, count - filled)
                #else
                let got = Darwin.read(file, start + filled, count - filled)
                #endif
                if got < 0, errno == EINTR { continue }
                if got <= 0 { break }
                filled += got
            }
        }
    }

    /// Writes all bytes. Blocks its thread, which must hold back SIGPIPE.
    ///
    /// - Returns: whether the reader was still there.
    static func write(_ file: Int32, _ bytes: [UInt8]) -> Bool {
        bytes.withUnsafeBytes { buffer in
            var done = 0
            while done < buffer.count, let start = buffer.baseAddress {
                #if canImport(Glibc)
                let sent = Glibc.write(file, start + done, buffer.count - done)
                #else
                let sent = Darwin.write(file, start + done, buffer.count - done)
                #endif
                if sent < 0, errno == EINTR { continue }
                if sent <= 0 { return false }
                done += sent
            }
            return true
        }
    }

    /// Keeps SIGPIPE, which a write to a process that has ended raises, from ending the app; for the calling thread.
    static func holdBackBrokenPipes() {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, SIGPIPE)
        pthread_sigmask(SIG_BLOCK, &set, nil)
    }
}
#endif
