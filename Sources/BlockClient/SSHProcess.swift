// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import Synchronization
internal import SystemPackage
internal import WireProtocol

/// An ssh process whose standard input and output are one end of a socket; the other is ours.
///
/// Two threads go with it: one reads its standard error, one waits for its end.
final class SSHProcess: Sendable {
    private struct State {
        /// The last lines of standard error.
        var lines: [String] = []
        var isSilent = false
        /// As of waitpid(2); `nil` while it runs.
        var status: Int32?
    }
    /// Our end.
    let socket: Int32
    private let process: pid_t
    private let state = Mutex(State())

    /// Lines that are kept: the warning about a changed host key has a dozen.
    private static let lineCount = 40
    /// Bytes of a line; the rest is a line of its own.
    private static let lineLimit = 1024
    /// Has the program ignore signals from a terminal, and those for all of a service.
    ///
    /// blkferry ends a run in order then, and needs its connections for that. ssh leaves signals
    /// ignored that it finds so, and hands that on to what it starts for ProxyJump; only while it
    /// asks for a passphrase it listens to them.
    private static let deaf = "trap '' HUP INT QUIT TERM; exec \"$@\""

    /// Starts it.
    ///
    /// - Parameters:
    ///   - words: the program and its arguments.
    ///   - note: told of each line of its standard error.
    /// - Throws: when it cannot be started.
    init(_ words: [String], note: @escaping @Sendable (String) -> Void) throws(HTTPError) {
        guard let program = words.first, Program.find(program) != nil else {
            throw HTTPError(
                .unreachable, "\(words.first ?? "ssh") is not found on this machine",
                advice: "Install openssh-client, or name it by --ssh-command.")
        }
        do throws(Errno) {
            var ends: [Int32] = [-1, -1]
            _ = try retryingInterrupts { clb_socket_pair(&ends) }
            socket = ends[0]
            let far = OwnedDescriptor(owning: ends[1])
            do throws(Errno) {
                var pipe: [Int32] = [-1, -1]
                _ = try retryingInterrupts { clb_pipe(&pipe) }
                let errors = OwnedDescriptor(owning: pipe[0])
                let errorInput = OwnedDescriptor(owning: pipe[1])
                process = try Program.start(
                    "/bin/sh", ["/bin/sh", "-c", Self.deaf, "sh"] + words,
                    .init(
                        input: far.rawValue, output: far.rawValue, errors: errorInput.rawValue))
                let source = Source(errors)
                _ = Threads.start(count: 1, orInline: false) { [self] _ in read(source, note) }
                let waiter = Threads.start(count: 1, orInline: false) { [self] _ in reap() }
                if waiter.isEmpty { _ = Glibc.kill(process, SIGKILL) }
            } catch {
                close(socket)
                throw error
            }
        } catch {
            throw HTTPError(.unreachable, "\(program): start: \(error)")
        }
    }

    private final class Source: Sendable {
        let file: OwnedDescriptor
        init(_ file: consuming OwnedDescriptor) { self.file = file }
    }

    private func read(_ source: Source, _ note: @Sendable (String) -> Void) {
        var line: [UInt8] = []
        func finish() {
            let text = String(decoding: line, as: UTF8.self)
            line = []
            guard !text.isEmpty else { return }
            note(text)
            state.withLock { state in
                state.lines.append(text)
                if state.lines.count > Self.lineCount { state.lines.removeFirst() }
            }
        }
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 8) { buffer in
            let file = source.file.rawValue
            while let count = try? retryingInterrupts({
                Glibc.read(file, buffer.baseAddress, buffer.count)
            }), count > 0 {
                for byte in buffer[..<count] {
                    switch byte {
                    case UInt8(ascii: "\n"): finish()
                    case UInt8(ascii: "\r"): break
                    default:
                        line.append(byte)
                        if line.count == Self.lineLimit { finish() }
                    }
                }
            }
        }
        finish()
        state.withLock { $0.isSilent = true }
    }

    private func reap() {
        var information = siginfo_t()
        // It stays a zombie at first, so that its number is nobody else's while we may kill it.
        _ = try? retryingInterrupts {
            waitid(P_PID, id_t(process), &information, WEXITED | WNOWAIT)
        }
        state.withLock { state in
            var status: Int32 = 0
            _ = try? retryingInterrupts { waitpid(process, &status, 0) }
            state.status = status
        }
    }
}

extension SSHProcess {
    /// What it has told on standard error, the last lines.
    var lines: [String] { state.withLock { $0.lines } }

    /// Whether it has ended.
    var hasEnded: Bool { state.withLock { $0.status != nil } }

    /// How it ended (wait(2)).
    var ending: SSHFailure.Ending {
        guard let status = state.withLock({ $0.status }) else { return .none }
        let signal = Int(status & 0x7F)
        return signal == 0 ? .exit(Int(status >> 8 & 0xFF)) : .signal(signal)
    }

    /// Ends it at once.
    func kill() {
        state.withLock { state in
            if state.status == nil { _ = Glibc.kill(process, SIGKILL) }
        }
    }

    /// Waits until it has ended and all is read that it has told.
    ///
    /// - Parameters:
    ///   - time: how long.
    ///   - isOver: ends the wait.
    func waitForEnd(within time: Duration, unless isOver: () -> Bool = { false }) {
        let deadline = ContinuousClock.now + time
        _ = pause(until: deadline) { hasEnded || isOver() }
        // What it has started for the background may keep standard error open.
        let soon = min(deadline, .now + .seconds(1))
        _ = pause(until: soon) { state.withLock { $0.isSilent } || !hasEnded || isOver() }
    }

    /// Bytes that it has read so far, from us and from the network; 0 where the kernel does not
    /// tell (proc_pid_io(5)).
    var bytesRead: UInt64 {
        readSmallFile("/proc/\(process)/io")?.split(separator: "\n").first?
            .split(separator: " ").last.flatMap { UInt64($0) } ?? 0
    }
}
