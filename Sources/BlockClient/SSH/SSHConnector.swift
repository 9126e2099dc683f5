// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// Makes connections through ssh processes that run `blkferry serve --stdio` on the other host.
///
/// The processes start one at a time, so that their prompts on the terminal do not mix.
final class SSHConnector: Connector {
    private struct State {
        var isStarting = false
        /// The command line, once the ciphers are known.
        var words: [String]?
        var open: [Int32: SSHProcess] = [:]
        /// Processes whose socket is closed and which should end by themselves.
        var ending: [SSHProcess] = []
    }
    /// The end of an attempt to connect.
    private struct Limit {
        /// `nil` for no limit.
        private let seconds: Double?
        private let start = ContinuousClock.now

        init(_ seconds: Double?) { self.seconds = seconds }

        var isOver: Bool { seconds.map { start + .seconds($0) < .now } ?? false }
        var error: IOError { .noConnection(within: seconds ?? 0) }
    }
    private let command: SSHCommand
    private let note: @Sendable (String) -> Void
    private let state = Guarded(State())

    /// How long processes may take to end after their sockets are closed.
    private static let patience = Duration.seconds(3)

    /// - Parameter note: called with each line that the processes write to standard error.
    init(_ command: SSHCommand, note: @escaping @Sendable (String) -> Void) {
        self.command = command
        self.note = note
    }

    deinit {
        let ending = state.withLock { $0.ending + $0.open.values }
        let deadline = ContinuousClock.now + Self.patience
        for process in ending {
            process.waitForEnd(within: max(.zero, deadline - .now))
            process.kill()
        }
    }

    func connect(
        within seconds: Double?, unless isCancelled: () -> Bool
    ) throws(IOError) -> Int32 {
        let limit = Limit(seconds)
        let begins = state.wait(unless: { isCancelled() || limit.isOver }) { state -> Bool? in
            guard !state.isStarting else { return nil }
            state.isStarting = true
            return true
        }
        guard begins != nil else { throw isCancelled() ? IOError.cancelled : limit.error }
        defer { state.withLock { $0.isStarting = false } }
        if isCancelled() { throw .cancelled }
        let (host, note) = (command.host, note)
        let words =
            state.withLock { $0.words }
            ?? command.words(with: SSHConfiguration.options(for: command, unless: isCancelled))
        state.withLock { $0.words = words }
        let process = try SSHProcess(words) { note("\(host): \(printable($0))") }
        do throws(IOError) {
            try waitForGreeting(process, limit, unless: isCancelled)
        } catch {
            process.kill()
            process.waitForEnd(within: .seconds(1))
            close(process.socket)
            throw error
        }
        state.withLock { $0.open[process.socket] = process }
        return process.socket
    }

    func disconnect(_ socket: Int32) {
        let process = state.withLock { state in
            state.ending.removeAll(where: \.hasEnded)
            return state.open.removeValue(forKey: socket)
        }
        close(socket)
        guard let process else { return }
        state.withLock { $0.ending.append(process) }
        // The process lost its connection, or ends with the remote server. A thread of its own
        // waits for it.
        _ = Threads.start(count: 1, orInline: false) { _ in
            process.waitForEnd(within: Self.patience)
            process.kill()
        }
    }

    func activity(of socket: Int32) -> UInt64 {
        state.withLock { $0.open[socket] }?.bytesRead ?? 0
    }

    /// Reads up to the end of the greeting, and not one byte more.
    private func waitForGreeting(
        _ process: SSHProcess, _ limit: Limit, unless isCancelled: () -> Bool
    ) throws(IOError) {
        var bytes: [UInt8] = []
        /// The end of the time for other output, such as that of a shell's start files.
        var deadline: ContinuousClock.Instant?
        while true {
            if isCancelled() { throw .cancelled }
            if limit.isOver { throw limit.error }
            var isAll = deadline.map { $0 < .now } ?? false
            var polled = pollfd(fd: process.socket, events: Int16(POLLIN), revents: 0)
            if poll(&polled, 1, 50) > 0 {
                var byte: UInt8 = 0
                if recv(process.socket, &byte, 1, Int32(MSG_DONTWAIT)) == 1 {
                    bytes.append(byte)
                    guard byte == UInt8(ascii: "\n") || bytes.count >= StdioGreeting.searchLimit
                    else { continue }
                } else {
                    isAll = true
                    process.waitForEnd(within: .seconds(5), unless: isCancelled)
                }
            }
            let finding = StdioGreeting.find(in: bytes, isAll: isAll)
            switch finding {
            case .greeted: return
            case .unfinished:
                if !bytes.isEmpty { deadline = deadline ?? .now + .seconds(10) }
            case .other, .chatter:
                throw SSHFailure(
                    process.termination, lines: process.lines, finding: finding, command
                ).error
            }
        }
    }
}
