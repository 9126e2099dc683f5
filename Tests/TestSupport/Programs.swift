// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Dispatch
internal import Foundation
internal import Glibc

/// What a program did.
package struct ProgramResult: Sendable {
    /// Exit status; 128 and more for the signal that ended it.
    package let status: Int
    package let output: String
    package let errors: String
}

/// A program that runs beside the test; it is killed when the test forgets it.
package final class RunningProgram {
    private let process = Process()
    private let scratch: ScratchDirectory
    /// Left when it ends; Foundation's own way to wait for that keeps a processor busy.
    private let running = DispatchGroup()

    /// Starts a program without a terminal, standard input empty.
    ///
    /// - Parameters:
    ///   - arguments: the program, looked up in PATH and the system directories, and its arguments.
    ///   - environment: variables set besides those of this process.
    /// - Throws: when it cannot be started.
    package init(_ arguments: [String], environment: [String: String] = [:]) throws {
        scratch = try ScratchDirectory()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = arguments
        var variables = ProcessInfo.processInfo.environment
        variables["PATH"] = (variables["PATH"] ?? "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
        variables["LC_ALL"] = "C"
        process.environment = variables.merging(environment) { _, new in new }
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = try Self.newFile(scratch.file("out"))
        process.standardError = try Self.newFile(scratch.file("err"))
        running.enter()
        process.terminationHandler = { [running] _ in running.leave() }
        do {
            try process.run()
        } catch {
            running.leave()
            throw error
        }
    }

    deinit { if process.isRunning { signal(SIGKILL) } }

    package func signal(_ number: Int32) { kill(process.processIdentifier, number) }

    package var processID: Int32 { process.processIdentifier }

    package var isRunning: Bool { process.isRunning }

    /// What it has written to standard output so far.
    package func outputSoFar() throws -> String {
        try String(contentsOfFile: scratch.file("out"), encoding: .utf8)
    }

    /// What it has written to standard error so far.
    package func errorsSoFar() throws -> String {
        try String(contentsOfFile: scratch.file("err"), encoding: .utf8)
    }

    /// Waits until it has ended.
    package func wait() throws -> ProgramResult {
        running.wait()
        let status = Int(process.terminationStatus)
        return ProgramResult(
            status: process.terminationReason == .uncaughtSignal ? 128 + status : status,
            output: try String(contentsOfFile: scratch.file("out"), encoding: .utf8),
            errors: try String(contentsOfFile: scratch.file("err"), encoding: .utf8))
    }

    private static func newFile(_ path: String) throws -> FileHandle {
        _ = FileManager.default.createFile(atPath: path, contents: nil)
        return try FileHandle(forWritingTo: URL(fileURLWithPath: path))
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
