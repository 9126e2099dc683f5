// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

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
    func `the version is told, and is success`(subcommand: Subcommand) throws {
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
    func `an operand too many is wrong usage`(subcommand: Subcommand) throws {
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
    func `a block size that cannot be is wrong usage`(subcommand: Subcommand, size: String) throws {
        expectOneMessage(
            try subcommand.run("--block-size=\(size)", "/a", "/b"), status: 64, "")
    }

    @Test(
        arguments: withOperands,
        [
            "http://localhost", "http:///a", "http://localhost:0/a", "http://localhost:99999/a",
            "ftp://localhost/a", "http://user@localhost/a", "http://localhost/a?b",
            "http://::1/a", "http://localhost/%zz", "http://local host/a",
        ])
    func `a URL that cannot be is wrong usage`(subcommand: Subcommand, url: String) throws {
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
    func `a server that is not there is an error of the network`(subcommand: Subcommand) throws {
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
    func `an empty source is an error, and the target stays as it is`(
        subcommand: Subcommand
    ) throws {
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
    func `a device that no tag leads to is named`(subcommand: Subcommand) throws {
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

    @Test func `a limit of file size is an error like a full disk`() throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 4 << 20)
        try fill(source, seed: 1, size: 4 << 20)
        let result = try run(
            "prlimit", "--fsize=1000000", program, source, scratch.file("target"))
        #expect(result.status == 3)
        #expect(result.errors.contains("File too large"))
    }

    @Test func `no arguments at all print help and are not success`() throws {
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
}
