// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import Synchronization
package import SystemPackage

/// A program that ran to its end, together with the processes that it started.
package struct ProgramRun {
    package enum Reading: Hashable, Sendable {
        /// The last 64 KiB of standard error.
        case errors
        /// The last 64 KiB of standard output and standard error together.
        case outputAndErrors
        /// All of standard output, and separately the last 64 KiB of standard error.
        ///
        /// More bytes of output than the limit kill the program, and the run fails.
        case wholeOutput(limit: Int)
    }

    package let bytes: [UInt8]
    /// Standard error, if it is read separately.
    private let complaints: [UInt8]
    /// Why the output is not complete.
    private let fault: String?
    /// From waitpid(2); `nil` if it is unknown.
    private let status: Int32?

    /// Bytes, if not all output is wanted.
    private static let limit = 64 << 10
    /// Milliseconds between two checks.
    private static let pause: Int32 = 50
    /// Checks after the program's end before the processes that it left behind are killed.
    private static let patience = 100
    /// Checks after SIGKILL before a program may be left behind.
    private static let grace = 10

    /// Runs a program in its own session, until no process has its standard error open any more.
    ///
    /// - Parameters:
    ///   - arguments: without the program's name.
    ///   - variables: of the form `NAME=VALUE`, in addition to this program's environment.
    ///   - mayBeLeftBehind: returns even if the killed program does not end, because the kernel
    ///     ends no process that waits for a device that does not answer.
    ///   - isCancelled: called repeatedly; `true` kills the program and its process group.
    package init(
        _ path: String, _ arguments: [String], variables: [String] = [], reading: Reading,
        mayBeLeftBehind: Bool = false, unless isCancelled: () -> Bool
    ) throws(Errno) {
        let limit = reading.limit ?? Self.limit
        let output = try Stream(limit: limit)
        let errors = reading.limit == nil ? nil : try Stream(limit: Self.limit)
        let process = try Self.start(path, arguments, variables, reading, output, errors)
        let isWhole = Self.read(
            [output, errors].compactMap(\.self), of: process,
            grace: mayBeLeftBehind ? Self.grace : nil
        ) {
            isCancelled() || (reading.limit != nil && output.isCut)
        }
        let isLeftBehind = mayBeLeftBehind && !isWhole && !Self.hasEnded(process)
        if isLeftBehind {
            LeftPrograms.shared.add(process, path)
            status = nil
        } else {
            var status: Int32 = 0
            let waited = try? retryingInterrupts { waitpid(process, &status, 0) }
            self.status = waited == process ? status : nil
        }
        if isLeftBehind {
            fault = "it was killed and does not end"
        } else if reading.limit == nil {
            fault = nil
        } else if output.isCut {
            fault = "it printed more than \(limit) bytes"
        } else {
            fault = isWhole ? nil : "a program that it started still runs"
        }
        bytes = output.bytes
        complaints = errors?.bytes ?? []
    }

    private static func start(
        _ path: String, _ arguments: [String], _ variables: [String], _ reading: Reading,
        _ output: Stream, _ errors: Stream?
    ) throws(Errno) -> Int32 {
        let nothing = try OwnedDescriptor.open("/dev/null", flags: O_RDWR)
        defer { for stream in [output, errors] { stream?.closeWriter() } }
        return try Program.start(
            path, [path] + arguments,
            .init(
                input: nothing.rawValue,
                output: reading == .errors ? nothing.rawValue : output.writer,
                errors: (errors ?? output).writer),
            variables: variables, inNewSession: true)
    }

    /// Reads until no process has the streams open; `false` if a process that cannot be killed
    /// still has them open.
    ///
    /// - Parameter grace: checks that the killed program has to end; `nil` for no limit.
    private static func read(
        _ streams: [Stream], of process: Int32, grace: Int?, unless isCancelled: () -> Bool
    ) -> Bool {
        var isKilled = false
        var looks = 0
        var looksSinceKill = 0
        while streams.contains(where: { !$0.hasEnded }) {
            // The ids of process and group are not reused before waitpid(2).
            if !isKilled, isCancelled() || looks > patience {
                kill(-process, SIGKILL)
                isKilled = true
            }
            // A process outside the group may keep the pipe open forever.
            if looks > 2 * patience { return false }
            var requests = streams.map(\.request)
            guard poll(&requests, nfds_t(requests.count), pause) > 0 else {
                looks += hasEnded(process) ? 1 : 0
                looksSinceKill += isKilled ? 1 : 0
                if let grace, looksSinceKill > grace { return false }
                continue
            }
            for (stream, request) in zip(streams, requests) where request.revents != 0 {
                stream.read()
            }
        }
        return true
    }

    /// Whether a killed program that was started by this path still runs.
    package static func hasLeftBehind(_ path: String) -> Bool { LeftPrograms.shared.has(path) }

    private static func hasEnded(_ process: Int32) -> Bool {
        var information = siginfo_t()
        let result = waitid(P_PID, id_t(process), &information, WEXITED | WNOHANG | WNOWAIT)
        return result != 0 || information.si_signo == SIGCHLD
    }

    /// Why the run failed; `nil` if it succeeded.
    package var failure: String? {
        if let fault { return fault }
        guard let status else { return "its exit status is unknown" }
        if status == 0 { return nil }
        let signal = status & 0x7F
        return signal == 0
            ? "it ended with status \(status >> 8 & 0xFF)" : "signal \(signal) ended it"
    }

    /// Whether the program ended itself, with any status, and not by a signal.
    package var hasExited: Bool { status.map { $0 & 0x7F == 0 } ?? false }

    /// The output, with invalid UTF-8 replaced.
    package var text: String { String(decoding: bytes, as: UTF8.self) }

    /// The lines of the output, without empty ones.
    package var lines: [Substring] { Self.lines(text) }

    /// The lines of standard error, if it is read separately, without empty ones.
    package var errorLines: [Substring] {
        Self.lines(String(decoding: complaints, as: UTF8.self))
    }

    private static func lines(_ text: String) -> [Substring] {
        text.split { $0 == "\n" || $0 == "\r\n" || $0 == "\r" }
    }
}

extension ProgramRun.Reading {
    fileprivate var limit: Int? {
        if case .wholeOutput(let limit) = self { limit } else { nil }
    }
}

/// Programs that were killed and do not end; a thread waits for each.
private final class LeftPrograms: Sendable {
    static let shared = LeftPrograms()

    private let counts = Mutex<[String: Int]>([:])

    func has(_ path: String) -> Bool { counts.withLock { $0[path] != nil } }

    func add(_ process: Int32, _ path: String) {
        counts.withLock { $0[path, default: 0] += 1 }
        let isWaitedFor = Threads.startDetached { [self] in
            var status: Int32 = 0
            _ = try? retryingInterrupts { waitpid(process, &status, 0) }
            remove(path)
        }
        if !isWaitedFor { remove(path) }
    }

    private func remove(_ path: String) {
        counts.withLock { counts in
            guard let count = counts[path] else { return }
            counts[path] = count > 1 ? count - 1 : nil
        }
    }
}

/// A pipe and the last bytes of its output.
private final class Stream {
    private let reader: OwnedDescriptor
    private var writerOwner: OwnedDescriptor?
    private let limit: Int
    private(set) var bytes: [UInt8] = []
    private(set) var isCut = false
    private(set) var hasEnded = false
    let writer: Int32

    init(limit: Int) throws(Errno) {
        var ends: [Int32] = [-1, -1]
        _ = try retryingInterrupts { clb_pipe(&ends) }
        reader = OwnedDescriptor(owning: ends[0])
        writerOwner = OwnedDescriptor(owning: ends[1])
        writer = ends[1]
        self.limit = limit
    }

    /// From now on only programs can write.
    func closeWriter() { writerOwner = nil }

    /// For poll(2), which ignores negative descriptors.
    var request: pollfd {
        pollfd(fd: hasEnded ? -1 : reader.rawValue, events: Int16(POLLIN), revents: 0)
    }

    func read() {
        let count = try? withUnsafeTemporaryAllocation(byteCount: 16 << 10, alignment: 1) {
            chunk throws(Errno) in
            let count = try retryingInterrupts {
                Glibc.read(reader.rawValue, chunk.baseAddress, chunk.count)
            }
            bytes += chunk[..<count]
            return count
        }
        hasEnded = (count ?? 0) == 0
        guard bytes.count > limit else { return }
        isCut = true
        bytes.removeFirst(bytes.count - limit)
    }
}
