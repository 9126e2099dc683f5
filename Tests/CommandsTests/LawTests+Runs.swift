// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

extension LawTests {
    /// A call in which `@` stands for a directory with two equal files, `image` and `copy`.
    struct Call: Sendable, CustomTestStringConvertible {
        var words: [String]
        var status = 0
        /// Object, operation and reason of the error.
        var message = ""
        var testDescription: String { words.joined(separator: " ") }

        static let directoryContent = "copy\nimage\n"

        /// Makes the two files.
        static func prepare(_ directory: String) throws {
            try must("truncate", "-s", "1M", "\(directory)/image", "\(directory)/copy")
        }

        private func arguments(_ directory: String, _ more: [String] = []) -> [String] {
            [program] + (words + more).map { $0.replacingOccurrences(of: "@", with: directory) }
        }

        private static let permission = ["BLKFERRY_BENCHMARK": "allowed"]

        func run(in directory: String, _ more: String...) throws -> ProgramResult {
            try RunningProgram(arguments(directory, more), environment: Self.permission).wait()
        }

        /// Runs it with redirections as a shell reads them.
        func run(in directory: String, redirected redirections: String) throws -> ProgramResult {
            let command = arguments(directory).joined(separator: " ")
            return try RunningProgram(
                ["sh", "-c", "exec \(command) \(redirections)"], environment: Self.permission
            ).wait()
        }
    }

    static let failures = missingSources + unreachableSources + otherFailures

    private static let missingSources = ofImages.map { subcommand in
        Call(
            words: subcommand.words + ["@/none", "@/image"], status: 3,
            message: "@/none: open: No such file or directory")
    }

    private static let unreachableSources = ofImages.map { subcommand in
        Call(
            words: subcommand.words + ["http://127.0.0.1:1/dev/a", "@/image"], status: 4,
            message: "http://127.0.0.1:1/dev/a: open: connection refused")
    }

    private static let otherFailures: [Call] = [
        Call(
            words: ["refresh", "@/image", "@/new"], status: 3,
            message: "@/image: find volume: it is no logical volume"),
        Call(
            words: ["list", "http://127.0.0.1:1"], status: 4,
            message: "http://127.0.0.1:1: list: connection refused"),
        Call(
            words: ["list", "http://127.0.0.1:1", "--token-file", "@/none"], status: 64,
            message: "@/none: open: No such file or directory"),
        Call(
            words: ["serve", "--export", "@/image", "--token-file", "@/none"], status: 64,
            message: "@/none: open: No such file or directory"),
        Call(
            words: ["serve", "--export", "@/image", "--exports-file", "@/none"], status: 64,
            message: "@/none: read: No such file or directory"),
        Call(
            words: ["token", "--hash", "--token-file", "@/none"], status: 64,
            message: "@/none: open: No such file or directory"),
    ]

    /// Calls that print a result.
    ///
    /// A refresh would need a logical volume, and a server prints none.
    static let results = [
        ["sync", "--dry-run", "@/image", "@/new"], ["verify", "@/image", "@/copy"],
        ["benchmark", "-B", "1", "@/image", "@/new"], ["list"], ["token"], ["token", "--hash"],
    ].map { Call(words: $0) }

    /// Those of the failures whose command has `--json`.
    static let failuresForJSON = failures.filter { !["serve", "token"].contains($0.words[0]) }
    static let jsonResults =
        results.filter { $0.words[0] != "token" }.map { Call(words: $0.words + ["--json"]) }
    static let allResults = results + jsonResults

    /// The target of a benchmark is a device of this machine.
    static let withRemoteTarget = ofImages.filter { $0.name != "benchmark" }

    /// The object that a result consists of.
    private func object(_ result: ProgramResult) throws -> Record {
        #expect(result.output.split(separator: "\n").count == 1, "\(result)")
        let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
        return Record(try #require(object as? [String: Any], "\(result)"))
    }

    @Test(arguments: failures)
    func `a failure has its status, and one line names object, operation and reason`(call: Call)
        throws
    {
        let scratch = try ScratchDirectory()
        try Call.prepare(scratch.path)
        let result = try call.run(in: scratch.path)
        let message = call.message.replacingOccurrences(of: "@", with: scratch.path)
        expectOneMessage(result, status: call.status, "blkferry: \(message)")
        #expect(try must("ls", scratch.path) == Call.directoryContent)
    }

    @Test(arguments: failures)
    func `a failure prints no control character of a name`(call: Call) throws {
        let scratch = try ScratchDirectory()
        let odd = scratch.file("\u{1B}[2J\u{202E}")
        try must("mkdir", odd)
        try Call.prepare(odd)
        let result = try call.run(in: odd)
        expectOneMessage(result, status: call.status, "blkferry: ")
        #expect(!hasControls(result.errors), "\(result)")
    }

    @Test(arguments: failuresForJSON)
    func `a failure with --json is one JSON object as well`(call: Call) throws {
        let scratch = try ScratchDirectory()
        let odd = scratch.file("\u{1B}[2J\u{202E}")
        try must("mkdir", odd)
        try Call.prepare(odd)
        let result = try call.run(in: odd, "--json")
        #expect(result.status == call.status, "\(result)")
        let json = try object(result)
        #expect(json.int("exitStatus") == call.status)
        let message = call.message.replacingOccurrences(of: "@", with: odd)
        #expect(json.strings("errors")?.first?.hasPrefix(message) == true, "\(result)")
        #expect(!hasControls(result.output + result.errors))
    }

    @Test(arguments: ofImages)
    func `a refusal with --json has its cause`(subcommand: Subcommand) throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 4096)
        let json = try object(subcommand.run("--json", scratch.path, image))
        #expect(json.string("cause") == "wrong-kind" && json.int("exitStatus") == 2)
    }

    @Test(arguments: jsonResults + [Call(words: ["sync", "--json", "@/image", "@/new"])])
    func `a result with --json is one JSON object`(call: Call) throws {
        let scratch = try ScratchDirectory()
        try Call.prepare(scratch.path)
        let result = try call.run(in: scratch.path)
        #expect(result.status == 0, "\(result)")
        _ = try object(result)
    }

    @Test(arguments: allResults)
    func `a result that cannot be written is not success`(call: Call) throws {
        let scratch = try ScratchDirectory()
        try Call.prepare(scratch.path)
        let result = try call.run(in: scratch.path, redirected: "> /dev/full")
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("standard output: write: No space left on device"))
    }

    @Test(arguments: all)
    func `help that cannot be written is not success`(subcommand: Subcommand) throws {
        let words = subcommand.words.joined(separator: " ")
        let result = try run("sh", "-c", "\(program) \(words) --help > /dev/full")
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("standard output: write: No space left on device"))
    }

    @Test func `a server whose new token cannot be printed ends`() throws {
        let scratch = try ScratchDirectory()
        try Call.prepare(scratch.path)
        let words = ["serve", "-l", "127.0.0.1:0", "--export", "@/image", "--one-time-token"]
        let result = try Call(words: words).run(in: scratch.path, redirected: "> /dev/full")
        #expect(result.status == 3, "\(result)")
    }

    @Test(arguments: [[], ["sync"], ["sync", "--json"]])
    func `a sync is success although its result cannot be written, since the replica is durable`(
        words: [String]
    ) throws {
        let scratch = try ScratchDirectory()
        try Call.prepare(scratch.path)
        let call = Call(words: words + ["@/image", "@/new"])
        let result = try call.run(in: scratch.path, redirected: "> /dev/full")
        #expect(result.status == 0, "\(result)")
        #expect(result.errors.contains("standard output: write: No space left on device"))
        #expect(try areEqual(scratch.file("image"), scratch.file("new")))
    }

    @Test(arguments: results, [">&-", "<&- >&- 2>&-"])
    func `a command with closed standard descriptors ends as usual`(
        call: Call, redirections: String
    ) throws {
        let scratch = try ScratchDirectory()
        try Call.prepare(scratch.path)
        let result = try call.run(in: scratch.path, redirected: redirections)
        #expect(result.status == 0, "\(result)")
        #expect(result.output.isEmpty)
    }

    @Test(arguments: [
        ["-q", "@/image", "@/new"], ["sync", "-q", "@/image", "@/new"],
        ["sync", "-q", "-n", "@/image", "@/new"], ["verify", "-q", "@/image", "@/copy"],
    ])
    func `a quiet sync, dry run or verify prints nothing`(words: [String]) throws {
        let scratch = try ScratchDirectory()
        try Call.prepare(scratch.path)
        let result = try Call(words: words).run(in: scratch.path)
        #expect(result.status == 0, "\(result)")
        #expect(result.output.isEmpty && result.errors.isEmpty, "\(result)")
    }

    @Test(arguments: [SIGINT, SIGTERM])
    func `a quiet server prints nothing, and ends with 0 on a signal`(number: Int32) throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 4096)
        let socket = scratch.file("socket")
        let server = try RunningProgram([
            program, "serve", "-q", "--listen", "unix:\(socket)", "--export", image,
        ])
        while server.isRunning, !FileManager.default.fileExists(atPath: socket) { usleep(5_000) }
        server.signal(number)
        let result = try server.wait()
        #expect(result.status == 0, "\(result)")
        #expect(result.output.isEmpty && result.errors.isEmpty, "\(result)")
        #expect(try must("ls", scratch.path) == "image\n")
    }

    /// Signals in the middle of a run have suites of their own, `…InterruptionTests`.
    @Test(
        arguments: [
            ["@/image", "%/dev/a"], ["sync", "%/dev/a", "@/new"], ["verify", "@/image", "%/dev/a"],
            ["verify", "%/dev/a", "@/image"], ["list", "%"],
        ], [SIGINT, SIGTERM, SIGHUP])
    func `a signal ends a command that waits for a server's first answer with 130`(
        words: [String], number: Int32
    ) throws {
        let scratch = try ScratchDirectory()
        try Call.prepare(scratch.path)
        let server = ScriptedServer.streams { stream in
            while try !stream.receive().isEmpty {}
        }
        let arguments = words.map {
            $0.replacingOccurrences(of: "@", with: scratch.path)
                .replacingOccurrences(of: "%", with: server.base)
        }
        let run = try RunningProgram([program] + arguments)
        while run.isRunning, server.connections == 0 { usleep(5_000) }
        run.signal(number)
        #expect(try run.wait().status == 130)
        withExtendedLifetime(server) {}
        #expect(try must("ls", scratch.path) == Call.directoryContent)
    }

    @Test(arguments: withRemoteTarget)
    func `an unreachable server of the target is an error of the network`(subcommand: Subcommand)
        throws
    {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 4096)
        expectOneMessage(
            try subcommand.run(image, "http://[::1]:1/dev/a"), status: 4, "http://[::1]:1/dev/a")
    }

    @Test(arguments: ofImages)
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
    func `the error names a device that no tag leads to`(subcommand: Subcommand) throws {
        let scratch = try ScratchDirectory()
        let target = try scratch.sparseFile("target", size: 4096)
        expectOneMessage(
            try subcommand.run("UUID=00000000-dead-beef", target), status: 3,
            "UUID=00000000-dead-beef")
    }

    @Test(arguments: ofImages)
    func `a directory is refused, as source and as target`(subcommand: Subcommand) throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 4096)
        expectOneMessage(try subcommand.run(scratch.path, image), status: 2, scratch.path)
        expectOneMessage(try subcommand.run(image, scratch.path), status: 2, scratch.path)
    }

    @Test(arguments: ofImages)
    func `a character device is refused`(subcommand: Subcommand) throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 4096)
        expectOneMessage(try subcommand.run("/dev/zero", image), status: 2, "/dev/zero")
        expectOneMessage(try subcommand.run(image, "/dev/null"), status: 2, "/dev/null")
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

    /// The dynamic linker tells which libraries end in order; threads may still use them.
    @Test func `the program ends without the exit handlers of libraries`() throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 1 << 20)
        let target = scratch.file("target")
        let calls = [
            (0, [source, target]), (0, ["verify", source, target]), (0, ["--version"]),
            (0, ["list", "--help"]), (0, ["token"]), (2, [scratch.path, source]),
            (2, ["benchmark", source, target]), (3, [scratch.file("none"), source]),
            (3, ["refresh", source, target]), (64, []), (64, ["--no-such-option"]),
            (64, ["-rf"]), (64, ["serve"]),
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
