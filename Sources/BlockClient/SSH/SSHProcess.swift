// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// An ssh process whose standard input and output are one end of a socket pair.
///
/// One thread reads its standard error, another one waits for its end.
final class SSHProcess: Sendable {
    private struct State {
        /// The last lines of standard error.
        var lines: [String] = []
        var isSilent = false
        /// The status of waitpid(2); `nil` while it runs.
        var status: Int32?
    }
    /// This side's end of the socket pair.
    let socket: Int32
    private let process: pid_t
    private let state = Guarded(State())

    /// Number of lines that are kept; the warning about a changed host key has a dozen.
    private static let lineCount = 40
    /// Bytes of a line; the rest becomes a line of its own.
    private static let lineLimit = 1024
    /// A script that starts a program with ignored signals of the terminal and of the service
    /// manager.
    ///
    /// blkferry ends a run in order on such a signal, and needs its connections for that. ssh keeps
    /// ignored signals ignored, and passes that on to the processes of ProxyJump. It handles them
    /// only while it asks for a passphrase.
    private static let deaf = "trap '' HUP INT QUIT TERM; exec \"$@\""

    /// Starts the program; `note` gets each line of its standard error.
    init(_ words: [String], note: @escaping @Sendable (String) -> Void) throws(IOError) {
        guard let program = words.first, Program.find(program) != nil else {
            throw .transport(
                "\(words.first ?? "ssh") is not found on this machine",
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
            throw .transport("\(program): start: \(error)")
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
        // The process stays a zombie until the lock is held, so that `kill()` cannot hit another
        // process with the same id.
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
    var lines: [String] { state.withLock { $0.lines } }

    var hasEnded: Bool { state.withLock { $0.status != nil } }

    var termination: SSHFailure.Termination {
        guard let status = state.withLock({ $0.status }) else { return .none }
        let signal = Int(status & 0x7F)
        return signal == 0 ? .exit(Int(status >> 8 & 0xFF)) : .signal(signal)
    }

    func kill() {
        state.withLock { state in
            if state.status == nil { _ = Glibc.kill(process, SIGKILL) }
        }
    }

    /// Waits until the process has ended and its standard error is read.
    func waitForEnd(within time: Duration, unless isCancelled: () -> Bool = { false }) {
        let deadline = ContinuousClock.now + time
        _ = state.wait(unless: { ContinuousClock.now >= deadline || isCancelled() }) {
            $0.status != nil ? true : nil
        }
        // A background process that it started may keep standard error open.
        let soon = min(deadline, .now + .seconds(1))
        _ = state.wait(unless: { ContinuousClock.now >= soon || isCancelled() }) {
            $0.isSilent || $0.status == nil ? true : nil
        }
    }

    /// Bytes that it has read so far, from blkferry and from the network; 0 if the kernel does not
    /// report them (proc_pid_io(5)).
    var bytesRead: UInt64 {
        readSmallFile("/proc/\(process)/io")?.split(separator: "\n").first?
            .split(separator: " ").last.flatMap { UInt64($0) } ?? 0
    }
}
