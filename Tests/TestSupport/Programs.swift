// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Foundation
internal import Glibc
internal import LinuxIO
internal import Synchronization

/// The path of a program of this package: in the directory that BLKFERRY_PROGRAMS names, or as it was
/// built with the tests.
package func builtProgram(_ name: String) -> String {
    if let directory = ProcessInfo.processInfo.environment["BLKFERRY_PROGRAMS"],
        access("\(directory)/\(name)", X_OK) == 0
    {
        return "\(directory)/\(name)"
    }
    let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
    return URL(fileURLWithPath: own).deletingLastPathComponent().path + "/" + name
}

/// The program under test.
package let program = builtProgram("blkferry")

/// What a program did.
package struct ProgramResult: Sendable {
    /// Exit status; 128 and more for the signal that ended it.
    package let status: Int
    package let output: String
    package let errors: String
}

/// A program that runs beside the test; it is killed when the test forgets it.
///
/// It inherits nothing but its streams: a connection or a claim that another test gives up would live
/// on in it.
package final class RunningProgram {
    package let processID: Int32
    private let scratch: ScratchDirectory
    /// As of waitpid(2); `nil` until a thread has waited for it.
    private let status = Mutex<Int32?>(nil)

    /// Starts a program without a terminal, standard input empty.
    ///
    /// - Parameters:
    ///   - arguments: the program, looked up in PATH and the system directories, and its arguments.
    ///   - environment: variables set besides those of this process.
    ///   - output: its standard output; by default a file that this type reads.
    ///   - errors: its standard error, likewise.
    /// - Throws: when it cannot be started.
    package init(
        _ arguments: [String], environment: [String: String] = [:], output: Int32? = nil,
        errors: Int32? = nil
    ) throws {
        scratch = try ScratchDirectory()
        let path =
            (ProcessInfo.processInfo.environment["PATH"] ?? "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
        let variables = ["PATH": path, "LC_ALL": "C"].merging(environment) { _, new in new }
        func open(_ path: String, _ flags: Int32) throws -> OwnedDescriptor {
            try OwnedDescriptor.open(path, flags: flags)
        }
        let input = try open("/dev/null", O_RDONLY)
        let outputFile = try open(scratch.file("out"), O_WRONLY | O_CREAT)
        let errorFile = try open(scratch.file("err"), O_WRONLY | O_CREAT)
        processID = try Program.start(
            "/usr/bin/env", ["env"] + variables.map { "\($0)=\($1)" } + arguments,
            .init(
                input: input.rawValue, output: output ?? outputFile.rawValue,
                errors: errors ?? errorFile.rawValue),
            inNewSession: true)
    }

    deinit {
        signal(SIGKILL)
        _ = waitStatus()
    }

    /// Sends a signal, unless a thread has already waited for its end.
    package func signal(_ number: Int32) {
        status.withLock { status in
            if status == nil { kill(processID, number) }
        }
    }

    package var isRunning: Bool {
        status.withLock { status in
            guard status == nil else { return false }
            var information = siginfo_t()
            let result = waitid(
                P_PID, id_t(processID), &information, WEXITED | WNOHANG | WNOWAIT)
            return result == 0 && information.si_signo != SIGCHLD
        }
    }

    /// What it has written to standard output so far.
    package func outputSoFar() throws -> String {
        try String(contentsOfFile: scratch.file("out"), encoding: .utf8)
    }

    /// What it has written to standard error so far.
    package func errorsSoFar() throws -> String {
        try String(contentsOfFile: scratch.file("err"), encoding: .utf8)
    }

    /// Waits until standard error has a text, or the program has ended.
    package func waitUntil(says text: String) throws {
        while isRunning, try !errorsSoFar().contains(text) { usleep(5_000) }
    }

    /// Waits until it has ended.
    package func wait() throws -> ProgramResult {
        let status = waitStatus()
        let number = status & 0x7F
        return ProgramResult(
            status: Int(number == 0 ? status >> 8 & 0xFF : 128 + number),
            output: try outputSoFar(), errors: try errorsSoFar())
    }

    /// Waits without the lock, so that other threads can ask and send signals.
    private func waitStatus() -> Int32 {
        var information = siginfo_t()
        while waitid(P_PID, id_t(processID), &information, WEXITED | WNOWAIT) != 0,
            errno == EINTR
        {}
        return status.withLock { status in
            if let status { return status }
            var ended: Int32 = 0
            while waitpid(processID, &ended, 0) < 0, errno == EINTR {}
            status = ended
            return ended
        }
    }
}

/// Runs a program to its end.
package func run(
    _ arguments: String..., environment: [String: String] = [:]
) throws -> ProgramResult {
    try RunningProgram(arguments, environment: environment).wait()
}

/// Runs a program that a test relies on.
///
/// - Returns: its standard output.
/// - Throws: when it does not end with 0.
@discardableResult
package func must(_ arguments: String...) throws -> String { try must(arguments) }

/// The same with something on standard input.
@discardableResult
package func must(_ arguments: String..., input: String) throws -> String {
    try must(["sh", "-c", "printf '%s' \"$0\" | \"$@\"", input] + arguments)
}

@discardableResult
package func must(_ arguments: [String]) throws -> String {
    let result = try RunningProgram(arguments).wait()
    guard result.status == 0 else {
        throw ProgramFailure(command: arguments.joined(separator: " "), result: result)
    }
    return result.output
}

package struct ProgramFailure: Error {
    package let command: String
    package let result: ProgramResult
}

/// A server that a test has started did not come to listen.
package struct NotListening: Error {
    package let errors: String

    package init(errors: String) { self.errors = errors }
}

/// Waits until something holds; `false` after some seconds.
package func becomesTrue(
    within seconds: Double = 60, _ condition: () throws -> Bool
) rethrows -> Bool {
    let end = ContinuousClock.now + .seconds(seconds)
    while ContinuousClock.now < end {
        if try condition() { return true }
        usleep(10_000)
    }
    return try condition()
}

/// The system calls in a log of `strace -f -o`, each on one line with its result.
///
/// strace(1) splits a call into two lines if another thread's call comes between start and end.
package func systemCalls(inTrace path: String) throws -> [String] {
    var calls: [String] = []
    var unfinished: [Substring: String] = [:]
    for line in try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n") {
        let thread = line.prefix { $0 != " " }
        if let start = line.range(of: " <unfinished ...>") {
            unfinished[thread] = String(line[..<start.lowerBound])
        } else if let end = line.range(of: " resumed>"), line.contains(" <... ") {
            calls.append((unfinished.removeValue(forKey: thread) ?? "") + line[end.upperBound...])
        } else {
            calls.append(String(line))
        }
    }
    return calls + unfinished.values
}
