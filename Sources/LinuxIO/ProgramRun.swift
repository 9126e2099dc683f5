// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import SystemPackage

/// A program that was run to its end, with everything that it had started.
package struct ProgramRun {
    /// Which of its streams are read; standard input is empty.
    package enum Reading: Hashable, Sendable {
        /// The last 64 KiB of standard error.
        case errors
        /// The last 64 KiB of both in one.
        case outputAndErrors
        /// All of standard output, and apart from it the last 64 KiB of standard error. More bytes
        /// of output than the limit end the program, and are a failure.
        case wholeOutput(limit: Int)
    }

    /// What it has told.
    package let bytes: [UInt8]
    /// What it has told on standard error, where that is read apart.
    private let complaints: [UInt8]
    /// What keeps its output from being whole.
    private let fault: String?
    /// As of waitpid(2); `nil` where nobody can tell.
    private let status: Int32?

    /// Bytes of what it tells that are kept, where not all are wanted.
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
    ///   - input: an open file that it gets as its standard input; `nil` for an empty one.
    ///   - isOver: asked now and then; it is killed with all that it has started when this is so.
    /// - Throws: why it cannot be started.
    package init(
        _ path: String, _ arguments: [String], reading: Reading, input: Int32? = nil,
        unless isOver: () -> Bool
    ) throws(Errno) {
        let limit = reading.limit ?? Self.limit
        let output = try Stream(limit: limit)
        let errors = reading.limit == nil ? nil : try Stream(limit: Self.limit)
        let process = try Self.start(path, arguments, reading, input, output, errors)
        let isWhole = Self.read([output, errors].compactMap(\.self), of: process) {
            isOver() || (reading.limit != nil && output.isCut)
        }
        var status: Int32 = 0
        let waited = try? retryingInterrupts { waitpid(process, &status, 0) }
        self.status = waited == process ? status : nil
        if reading.limit == nil {
            fault = nil
        } else if output.isCut {
            fault = "it told more than \(limit) bytes"
        } else {
            fault = isWhole ? nil : "what it started goes on after its end"
        }
        bytes = output.bytes
        complaints = errors?.bytes ?? []
    }

    private static func start(
        _ path: String, _ arguments: [String], _ reading: Reading, _ input: Int32?,
        _ output: Stream, _ errors: Stream?
    ) throws(Errno) -> Int32 {
        let nothing = try OwnedDescriptor.open("/dev/null", flags: O_RDWR)
        defer { for stream in [output, errors] { stream?.closeWriter() } }
        return try Program.start(
            path, [path] + arguments,
            .init(
                input: input ?? nothing.rawValue,
                output: reading == .errors ? nothing.rawValue : output.writer,
                errors: (errors ?? output).writer),
            inNewSession: true)
    }

    /// Reads what a program tells until nobody has its streams open any more.
    ///
    /// - Returns: `false` where somebody still has one, who cannot be ended.
    private static func read(
        _ streams: [Stream], of process: Int32, unless isOver: () -> Bool
    ) -> Bool {
        var isKilled = false
        var looks = 0
        while streams.contains(where: { !$0.hasEnded }) {
            // Its number stays its own, and that of its group, until it is waited for.
            if !isKilled, isOver() || looks > patience {
                kill(-process, SIGKILL)
                isKilled = true
            }
            // What has left the group may have the pipe for ever.
            if looks > 2 * patience { return false }
            var requests = streams.map(\.request)
            guard poll(&requests, nfds_t(requests.count), pause) > 0 else {
                looks += hasEnded(process) ? 1 : 0
                continue
            }
            for (stream, request) in zip(streams, requests) where request.revents != 0 {
                stream.read()
            }
        }
        return true
    }

    private static func hasEnded(_ process: Int32) -> Bool {
        var information = siginfo_t()
        let result = waitid(P_PID, id_t(process), &information, WEXITED | WNOHANG | WNOWAIT)
        return result != 0 || information.si_signo == SIGCHLD
    }

    /// Why it has not done what it was asked for; `nil` where it has.
    package var failure: String? {
        if let fault { return fault }
        guard let status else { return "how it ended cannot be told" }
        if status == 0 { return nil }
        let signal = status & 0x7F
        return signal == 0
            ? "it ended with status \(status >> 8 & 0xFF)" : "signal \(signal) ended it"
    }

    /// Whether it ended by itself, whatever its status, and not by a signal.
    package var hasExited: Bool { status.map { $0 & 0x7F == 0 } ?? false }

    /// What it has told, in words.
    package var text: String { String(decoding: bytes, as: UTF8.self) }

    /// What it has told, line by line, without empty ones.
    package var lines: [Substring] { Self.lines(text) }

    /// What it has told on standard error, where that is read apart, line by line.
    package var errorLines: [Substring] {
        Self.lines(String(decoding: complaints, as: UTF8.self))
    }

    private static func lines(_ text: String) -> [Substring] {
        text.split { $0 == "\n" || $0 == "\r\n" || $0 == "\r" }
    }
}

extension ProgramRun.Reading {
    /// Bytes of output, where all of it is wanted.
    fileprivate var limit: Int? {
        if case .wholeOutput(let limit) = self { limit } else { nil }
    }
}

/// A pipe, and the last of what came out of it.
private final class Stream {
    private let reader: OwnedDescriptor
    private var writerOwner: OwnedDescriptor?
    private let limit: Int
    private(set) var bytes: [UInt8] = []
    /// Whether more came than is kept.
    private(set) var isCut = false
    private(set) var hasEnded = false
    /// The end that the program gets.
    let writer: Int32

    init(limit: Int) throws(Errno) {
        var ends: [Int32] = [-1, -1]
        _ = try retryingInterrupts { clb_pipe(&ends) }
        reader = OwnedDescriptor(owning: ends[0])
        writerOwner = OwnedDescriptor(owning: ends[1])
        writer = ends[1]
        self.limit = limit
    }

    /// From now on only programs can write to it.
    func closeWriter() { writerOwner = nil }

    /// For poll(2), which leaves negative descriptors out.
    var request: pollfd {
        pollfd(fd: hasEnded ? -1 : reader.rawValue, events: Int16(POLLIN), revents: 0)
    }

    /// Takes what there is.
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
