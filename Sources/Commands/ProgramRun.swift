// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// A program that was run to its end, with everything that it had started.
struct ProgramRun {
    /// Which of its streams are read; standard input is empty.
    enum Reading {
        case errors
        case outputAndErrors
    }

    /// What it has told, the last of it.
    private(set) var text = ""
    /// As of waitpid(2); `nil` where nobody can tell.
    private var status: Int32?

    /// Bytes of what it tells that are kept.
    private static let limit = 64 << 10
    /// Milliseconds between two looks at whether it is to end.
    private static let pause: Int32 = 50
    /// Looks after its end before what it left behind is ended, too.
    private static let patience = 100

    /// Runs a program apart from the terminal, and waits until nothing of it is left.
    ///
    /// All that it starts has its standard error, so that it is over when nobody has that open any
    /// more: then nobody writes for it any more either.
    ///
    /// - Parameters:
    ///   - path: the program's path.
    ///   - arguments: without its name.
    ///   - reading: what of it is kept.
    ///   - isOver: asked now and then; it is killed with all that it has started when this is so.
    /// - Throws: why it cannot be started.
    init(
        _ path: String, _ arguments: [String], reading: Reading, unless isOver: () -> Bool
    ) throws(Errno) {
        var ends: [Int32] = [-1, -1]
        _ = try retryingInterrupts { clb_pipe(&ends) }
        let reader = OwnedDescriptor(owning: ends[0])
        let process = try Self.start(path, arguments, OwnedDescriptor(owning: ends[1]), reading)
        var told: [UInt8] = []
        var isKilled = false
        var looks = 0
        while true {
            // Its number stays its own, and that of its group, until it is waited for.
            if !isKilled, isOver() || looks > Self.patience {
                kill(-process, SIGKILL)
                isKilled = true
            }
            // What has left the group may have the pipe for ever.
            if looks > 2 * Self.patience { break }
            var request = pollfd(fd: reader.rawValue, events: Int16(POLLIN), revents: 0)
            guard poll(&request, 1, Self.pause) > 0 else {
                looks += Self.hasEnded(process) ? 1 : 0
                continue
            }
            guard Self.read(reader.rawValue, &told) else { break }
        }
        var status: Int32 = 0
        let waited = try? retryingInterrupts { waitpid(process, &status, 0) }
        self.status = waited == process ? status : nil
        text = String(decoding: told, as: UTF8.self)
    }

    private static func start(
        _ path: String, _ arguments: [String], _ writer: consuming OwnedDescriptor,
        _ reading: Reading
    ) throws(Errno) -> Int32 {
        let nothing = try OwnedDescriptor.open("/dev/null", flags: O_RDWR)
        let told = writer.rawValue
        return try Program.start(
            path, [path] + arguments,
            .init(
                input: nothing.rawValue, output: reading == .errors ? nothing.rawValue : told,
                errors: told),
            inNewSession: true)
    }

    /// Takes what there is; `false` at the end.
    private static func read(_ descriptor: Int32, _ told: inout [UInt8]) -> Bool {
        var chunk = [UInt8](repeating: 0, count: 4096)
        let count = try? retryingInterrupts { Glibc.read(descriptor, &chunk, chunk.count) }
        guard let count, count > 0 else { return false }
        told += chunk[..<count]
        if told.count > limit { told.removeFirst(told.count - limit) }
        return true
    }

    private static func hasEnded(_ process: Int32) -> Bool {
        var information = siginfo_t()
        let result = waitid(P_PID, id_t(process), &information, WEXITED | WNOHANG | WNOWAIT)
        return result != 0 || information.si_signo == SIGCHLD
    }

    /// Why it has not done what it was asked for; `nil` where it has.
    var failure: String? {
        guard let status else { return "how it ended cannot be told" }
        if status == 0 { return nil }
        let signal = status & 0x7F
        return signal == 0
            ? "it ended with status \(status >> 8 & 0xFF)" : "signal \(signal) ended it"
    }

    /// What it has told, line by line, without empty ones.
    var lines: [Substring] { text.split { $0 == "\n" || $0 == "\r\n" || $0 == "\r" } }
}
