// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import ArgumentParser
import Foundation
import TestSupport
import Testing

@testable import Commands

/// What every subcommand obeys, where it applies; here wrong usage, in `LawTests+Runs.swift` runs.
@Suite(.blocking, .timeLimit(.minutes(60))) struct LawTests {
    struct Subcommand: Sendable, CustomTestStringConvertible {
        /// `nil` for none, which means `sync`.
        var name: String?
        var operandCount = 0
        /// Options of every call.
        var options: [String] = []
        var testDescription: String { name ?? "(default)" }

        var words: [String] { (name.map { [$0] } ?? []) + options }

        /// Arguments with which it would work, on files of a directory that has an `image`.
        func arguments(in directory: String) -> [String] {
            switch name {
            case "list", "token", "replicas": []
            case "rollback", "digest": ["\(directory)/image"]
            case "diff": ["\(directory)/image", "\(directory)/image"]
            case "serve":
                ["--listen", "unix:\(directory)/socket", "--export", "\(directory)/image"]
            default: ["\(directory)/image", "\(directory)/new"]
            }
        }

        /// Runs it to its end; a benchmark is permitted.
        func run(_ arguments: [String]) throws -> ProgramResult {
            try RunningProgram(
                [program] + words + arguments, environment: ["BLKFERRY_BENCHMARK": "allowed"]
            ).wait()
        }

        func run(_ arguments: String...) throws -> ProgramResult { try run(arguments) }
    }

    /// Those that read an image, or a device on a server; a benchmark prints its steps without -q.
    static let ofImages = [
        Subcommand(name: nil, operandCount: 2), Subcommand(name: "sync", operandCount: 2),
        Subcommand(name: "verify", operandCount: 2),
        Subcommand(name: "benchmark", operandCount: 2, options: ["-q"]),
    ]
    /// The source of a refresh is a logical volume; what it does is shown by the scenarios of
    /// tools/lab.
    static let withOperands = ofImages + [Subcommand(name: "refresh", operandCount: 2)]
    static let all =
        withOperands
        + [
            Subcommand(name: "rollback", operandCount: 1),
            Subcommand(name: "digest", operandCount: 1, options: ["-o", "/dev/shm/none/file"]),
            Subcommand(name: "diff", operandCount: 2, options: ["-o", "/dev/null/delta"]),
            Subcommand(name: "apply", operandCount: 2),
        ]
        + ["list", "serve", "token", "replicas"].map { name in Subcommand(name: name) }

    /// One line that starts with the program's name, and at most one that says what to do.
    func expectOneMessage(
        _ result: ProgramResult, status: Int, _ text: String,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let lines = result.errors.split(separator: "\n", omittingEmptySubsequences: false)
        #expect(result.status == status, "\(result)", sourceLocation: sourceLocation)
        #expect(lines.count == 2 || lines.count == 3, "\(lines)", sourceLocation: sourceLocation)
        #expect(
            lines.first?.hasPrefix("blkferry: ") == true, "\(lines)",
            sourceLocation: sourceLocation)
        #expect(result.errors.contains(text), "\(lines)", sourceLocation: sourceLocation)
        #expect(result.output.isEmpty, sourceLocation: sourceLocation)
    }

    /// Whether a text has one of the control characters of these tests.
    func hasControls(_ text: String) -> Bool {
        text.unicodeScalars.contains { $0 == "\u{1B}" || $0 == "\u{202E}" }
    }

    @Test func `the laws are about every subcommand`() {
        let names = Blkferry.configuration.subcommands.map { "\($0)".lowercased() }
        #expect(Set(names) == Set(Self.all.compactMap(\.name)))
    }

    @Test(arguments: all, ["--help", "-h"])
    func `help goes to standard output and is success`(subcommand: Subcommand, option: String)
        throws
    {
        let result = try subcommand.run(option)
        #expect(result.status == 0)
        #expect(result.output.contains("USAGE: blkferry"))
        #expect(result.errors.isEmpty)
    }

    @Test(arguments: all)
    func `help and the name of a subcommand print the same as its --help`(subcommand: Subcommand)
        throws
    {
        let names = subcommand.name.map { [$0] } ?? []
        let result = try RunningProgram([program, "help"] + names).wait()
        #expect(result.status == 0 && result.errors.isEmpty, "\(result)")
        #expect(try result.output == subcommand.run("--help").output)
    }

    @Test(arguments: all)
    func `the version is printed, and is success`(subcommand: Subcommand) throws {
        let result = try subcommand.run("--version")
        #expect(result.status == 0)
        #expect(result.output.wholeMatch(of: /\d+\.\d+\.\d+\n/) != nil)
    }

    @Test func `a call without arguments prints help and is not success`() throws {
        let result = try blkferry()
        #expect(result.status == 64)
        #expect(result.errors.contains("USAGE: blkferry"))
    }

    @Test(arguments: [
        ("sync", "<source>"), ("verify", "<source>"), ("refresh", "<source>"),
        ("benchmark", "<source>"), ("serve", "nothing is exported"),
    ])
    func `a subcommand that needs arguments and gets none is wrong usage`(
        name: String, text: String
    ) throws {
        expectOneMessage(try blkferry(name), status: 64, text)
    }

    @Test(arguments: all)
    func `an option that does not exist is wrong usage`(subcommand: Subcommand) throws {
        let operands = Array(["/a", "/b"].prefix(subcommand.operandCount))
        let result = try subcommand.run(operands + ["--no-such-option"])
        expectOneMessage(result, status: 64, "--no-such-option")
    }

    @Test(arguments: all, ["--no-such-option", "-rf", "--\u{1B}[2J\u{202E}"])
    func `with an unknown option nothing is written, and no control character printed`(
        subcommand: Subcommand, option: String
    ) throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 4096)
        try overwrite(image, [1], at: 0)
        let before = try [UInt8](contentsOf: image)
        let result = try subcommand.run(subcommand.arguments(in: scratch.path) + [option])
        expectOneMessage(result, status: 64, "usage: Unknown option '")
        #expect(!hasControls(result.errors))
        #expect(try must("ls", scratch.path) == "image\n")
        #expect(try [UInt8](contentsOf: image) == before)
    }

    @Test(arguments: all)
    func `one operand too many is wrong usage`(subcommand: Subcommand) throws {
        let operands =
            switch subcommand.name {
            case "list": ["http://a", "/c"]
            case "serve": ["--export-all", "/a"]
            case "token": ["/a"]
            case "replicas": ["/a", "/b"]
            default: ["/a", "/b", "/c"]
            }
        expectOneMessage(try subcommand.run(operands), status: 64, "nexpected argument")
    }

    @Test(arguments: withOperands)
    func `a missing operand is wrong usage`(subcommand: Subcommand) throws {
        expectOneMessage(try subcommand.run("/dev/null"), status: 64, "<target>")
    }

    @Test(arguments: withOperands)
    func `an empty operand is wrong usage`(subcommand: Subcommand) throws {
        expectOneMessage(try subcommand.run("", "/b"), status: 64, "empty")
    }

    @Test(arguments: withOperands, ["0", "100", "5x", "-1", "4097", "1G", "99999999999999999999"])
    func `an impossible block size is wrong usage`(subcommand: Subcommand, size: String) throws {
        expectOneMessage(
            try subcommand.run("--block-size=\(size)", "/a", "/b"), status: 64, "block")
    }

    @Test(
        arguments: withOperands,
        [
            "http://localhost", "http:///a", "http://localhost:0/a", "http://localhost:99999/a",
            "ftp://localhost/a", "http://user@localhost/a", "http://localhost/a?b",
            "http://::1/a", "http://localhost/%zz", "http://local host/a",
        ])
    func `an impossible URL is wrong usage`(subcommand: Subcommand, url: String) throws {
        expectOneMessage(try subcommand.run(url, "/b"), status: 64, url)
        expectOneMessage(try subcommand.run("/b", url), status: 64, url)
    }

    @Test(arguments: withOperands)
    func `two locations on the network are wrong usage`(subcommand: Subcommand) throws {
        expectOneMessage(
            try subcommand.run("http://localhost/a", "http://localhost/b"), status: 64,
            "one of them has to be a device of this machine")
    }

    @Test(
        arguments: withOperands,
        [
            "sync", "verify", "refresh", "benchmark", "serve", "list", "token", "replicas",
            "help",
        ])
    func `a command's name is never taken for a file`(subcommand: Subcommand, name: String) throws {
        expectOneMessage(try subcommand.run("./a", name), status: 64, "commands come first")
    }

    @Test(arguments: all)
    func `an argument that is not UTF-8 is never repaired into another name`(
        subcommand: Subcommand
    ) throws {
        let scratch = try ScratchDirectory()
        _ = try scratch.sparseFile("image", size: 4096)
        let words = [program] + subcommand.words + subcommand.arguments(in: scratch.path)
        let script = words.joined(separator: " ") + " \(scratch.path)/$(printf 'caf\\351')"
        let result = try run("sh", "-c", script)
        expectOneMessage(result, status: 64, "arguments: read: one is not UTF-8")
        #expect(try must("ls", scratch.path) == "image\n")
    }
}
