// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// What every subcommand obeys.
@Suite(.blocking) struct LawTests {
    /// A subcommand, and operands that it could work with.
    struct Subcommand: Sendable, CustomTestStringConvertible {
        let name: [String]
        let operandCount: Int
        var testDescription: String { name.first ?? "(default)" }

        func run(_ arguments: String...) throws -> ProgramResult {
            try RunningProgram([program] + name + arguments).wait()
        }
    }

    static let all = [
        Subcommand(name: [], operandCount: 2), Subcommand(name: ["sync"], operandCount: 2),
        Subcommand(name: ["verify"], operandCount: 2), Subcommand(name: ["list"], operandCount: 0),
        Subcommand(name: ["serve"], operandCount: 0),
        Subcommand(name: ["benchmark"], operandCount: 2),
        Subcommand(name: ["refresh"], operandCount: 2),
    ]
    /// A benchmark has to be permitted first, and its target is here; of a refresh the source is a
    /// logical volume.
    static let withOperands = all.filter {
        $0.operandCount == 2 && ![["benchmark"], ["refresh"]].contains($0.name)
    }

    /// One line that starts with the program's name, and at most one that says what to do.
    private func expectOneMessage(
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
    func `the version is printed, and is success`(subcommand: Subcommand) throws {
        let result = try subcommand.run("--version")
        #expect(result.status == 0)
        #expect(result.output.wholeMatch(of: /\d+\.\d+\.\d+\n/) != nil)
    }

    @Test(arguments: all)
    func `an option that does not exist is wrong usage`(subcommand: Subcommand) throws {
        let operands = ["/a", "/b"].prefix(subcommand.operandCount)
        let result = try RunningProgram(
            [program] + subcommand.name + operands + ["--no-such-option"]
        ).wait()
        expectOneMessage(result, status: 64, "--no-such-option")
    }

    @Test(arguments: all)
    func `one operand too many is wrong usage`(subcommand: Subcommand) throws {
        let operands =
            switch subcommand.name {
            case ["list"]: ["http://a", "/c"]
            case ["serve"]: ["--export-all", "/a"]
            default: ["/a", "/b", "/c"]
            }
        expectOneMessage(
            try RunningProgram([program] + subcommand.name + operands).wait(), status: 64,
            "nexpected argument")
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

    @Test(arguments: withOperands)
    func `an unreachable server is an error of the network`(subcommand: Subcommand) throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 4096)
        // Port 1, tcpmux, is served nowhere.
        expectOneMessage(
            try subcommand.run("http://127.0.0.1:1/dev/a", image), status: 4, "connection refused")
        expectOneMessage(
            try subcommand.run(image, "http://[::1]:1/dev/a"), status: 4, "http://[::1]:1/dev/a")
    }

    @Test(arguments: withOperands, ["sync", "verify", "list", "serve"])
    func `a command's name is never taken for a file`(subcommand: Subcommand, name: String) throws {
        expectOneMessage(try subcommand.run("./a", name), status: 64, "commands come first")
    }

    @Test(arguments: withOperands)
    func `an empty source is an error, and the target stays as it is`(subcommand: Subcommand) throws
    {
        let scratch = try ScratchDirectory()
        let empty = try scratch.sparseFile("empty", size: 0)
        let target = try scratch.sparseFile("target", size: 4096)
        try overwrite(target, [1], at: 0)
        expectOneMessage(try subcommand.run(empty, target), status: 3, "its size is 0")
        #expect(try [UInt8](contentsOf: target).count == 4096)
    }

    @Test(arguments: withOperands)
    func `a missing source is named`(subcommand: Subcommand) throws {
        let scratch = try ScratchDirectory()
        let target = try scratch.sparseFile("target", size: 4096)
        expectOneMessage(
            try subcommand.run(scratch.file("none"), target), status: 3,
            "\(scratch.file("none")): open: No such file or directory")
    }

    @Test(arguments: withOperands)
    func `the error names a device that no tag leads to`(subcommand: Subcommand) throws {
        let scratch = try ScratchDirectory()
        let target = try scratch.sparseFile("target", size: 4096)
        expectOneMessage(
            try subcommand.run("UUID=00000000-dead-beef", target), status: 3,
            "UUID=00000000-dead-beef")
    }

    @Test(arguments: withOperands)
    func `a directory is refused, as source and as target`(subcommand: Subcommand) throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 4096)
        expectOneMessage(try subcommand.run(scratch.path, image), status: 2, scratch.path)
        expectOneMessage(try subcommand.run(image, scratch.path), status: 2, scratch.path)
    }

    @Test(arguments: withOperands)
    func `a character device is refused`(subcommand: Subcommand) throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 4096)
        expectOneMessage(try subcommand.run("/dev/zero", image), status: 2, "/dev/zero")
        expectOneMessage(try subcommand.run(image, "/dev/null"), status: 2, "/dev/null")
    }

    @Test(arguments: [["list"], ["list", "--json"], ["verify", "@", "@"]])
    func `a result that cannot be written is not success`(arguments: [String]) throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 4096)
        let words = arguments.map { $0 == "@" ? image : $0 }
        let command = ([program] + words).joined(separator: " ") + " > /dev/full"
        let result = try run("sh", "-c", command)
        #expect(result.status == 3)
        #expect(result.errors.contains("No space left on device"))
    }

    @Test func `an operand that is not UTF-8 is never repaired into another name`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 4096)
        let result = try run(
            "sh", "-c", "\(program) \(image) \(scratch.path)/$(printf 'caf\\351')")
        #expect(result.status == 64)
        #expect(try must("ls", scratch.path) == "image\n")
    }

    @Test func `closed standard descriptors do not become the target's`() throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 8 << 20)
        try fill(source, seed: 1, size: 8 << 20)
        // On a tmpfs, which would take an unaligned message even with O_DIRECT.
        let memory = try ScratchDirectory(in: "/dev/shm")
        let target = try memory.sparseFile("target", size: 8 << 20)
        let command = "exec \(program) --verify --progress json \(source) \(target) <&- >&- 2>&-"
        #expect(try run("sh", "-c", command).status == 0)
        #expect(try areEqual(source, target))
    }

    @Test func `a limit of file size is a refusal before anything is written`() throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 4 << 20)
        try fill(source, seed: 1, size: 4 << 20)
        let target = scratch.file("target")
        let result = try run("prlimit", "--fsize=1000000", program, source, target)
        #expect(result.status == 2)
        #expect(result.errors.contains("this process may write files of 1000000 bytes at most"))
        #expect(!FileManager.default.fileExists(atPath: target))
    }

    @Test func `a call without arguments prints help and is not success`() throws {
        let result = try blkferry()
        #expect(result.status == 64)
        #expect(result.errors.contains("USAGE: blkferry"))
    }

    @Test(arguments: withOperands)
    func `a failure with --json is one JSON object as well`(subcommand: Subcommand) throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 4096)
        let result = try subcommand.run("--json", scratch.file("none"), image)
        #expect(result.status == 3)
        #expect(result.output.contains("\"exitStatus\":3"))
        let refused = try subcommand.run("--json", scratch.path, image)
        #expect(refused.output.contains("\"cause\":\"wrong-kind\""))
        #expect(result.output.split(separator: "\n").count == 1)
    }

    /// The dynamic linker tells which libraries end in order; threads may still use them.
    @Test func `the program ends without the exit handlers of libraries`() throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 1 << 20)
        let calls = [
            (0, [source, scratch.file("target")]), (0, ["--version"]), (0, ["list", "--help"]),
            (2, [scratch.path, source]), (3, [scratch.file("none"), source]), (64, []),
            (64, ["--no-such-option"]), (64, ["-rf"]),
        ]
        for (status, arguments) in calls {
            let result = try RunningProgram(
                [program] + arguments, environment: ["LD_DEBUG": "libs"]
            ).wait()
            #expect(result.status == status, "\(arguments): \(result)")
            #expect(result.errors.contains("calling init: "), "\(result)")
            #expect(!result.errors.contains("calling fini: "), "\(arguments)")
        }
    }
}
