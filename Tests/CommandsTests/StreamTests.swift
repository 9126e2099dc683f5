// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Standard input as the source.
@Suite(.blocking, .timeLimit(.minutes(60))) struct StreamTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let target: String
    private let size = 8_145_729

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.filledFile("source", size: size, seed: 1)
        target = scratch.file("target")
        // A hole, which stays one.
        try must("fallocate", "-p", "-o", "3M", "-l", "3M", source)
    }

    /// Runs `COMMAND | blkferry ARGUMENTS`.
    private func pipe(_ command: String, _ arguments: String...) throws -> ProgramResult {
        let words = [program] + arguments
        let line = words.map { "'\($0)'" }.joined(separator: " ")
        return try run("sh", "-c", "cd \(scratch.path) && { \(command); } | \(line)")
    }

    @Test(arguments: [[], ["--whole-file"], ["-c", "1"], ["--verify"], ["-b", "64K", "--verify"]])
    func `an image gets the stream's content and size`(options: [String]) throws {
        for before in ["", "truncate -s 20M target;", "head -c 9999872 /dev/urandom >target;"] {
            try must("sh", "-c", "cd \(scratch.path); rm -f target; \(before) true")
            let line = ([program] + options + ["--json", "-", target]).joined(separator: " ")
            let result = try run("sh", "-c", "cat \(source) | \(line)")
            #expect(result.status == 0 && result.errors.isEmpty, "\(options), \(before): \(result)")
            #expect(try areEqual(source, target), "\(options), \(before)")
            #expect(result.output.contains("\"sourceSize\":\(size)"))
            let isVerified = options.contains("--verify")
            #expect(result.output.contains("\"verified\":true") == isVerified)
            let allocated = try must("du", "-k", target).prefix { $0 != "\t" }
            #expect(try #require(Int(allocated)) < 5400)
        }
    }

    @Test func `only what differs is written`() throws {
        try must("cp", source, target)
        try overwrite(target, [1, 2, 3], at: 5 << 20)
        try overwrite(target, [1, 2, 3], at: size - 3)
        let result = try pipe("cat source", "--size", "\(size)", "--json", "-", target)
        #expect(result.status == 0 && result.output.contains("\"differentBlocks\":2,"), "\(result)")
        #expect(try areEqual(source, target))
    }

    @Test func `a file that is no disk image is not overwritten by a stream of any size`() throws {
        try must("cp", source, target)
        let refused = try pipe("head -c 4M source", "-", target)
        #expect(refused.status == 2 && refused.errors.contains("no multiple of 512"), "\(refused)")
        #expect(try areEqual(source, target))
        #expect(try pipe("cat source", "--overwrite", "-", target).status == 0)
    }

    @Test func `a stop while the stream's start is awaited is no end of the stream`() throws {
        for options in [[], ["--size", "8M"]] {
            let words = (["--stop-after", "1s"] + options + ["-", target])
            let line = ([program] + words).joined(separator: " ")
            let result = try run("sh", "-c", "{ head -c 5000 \(source); sleep 3; } | \(line)")
            #expect(result.status == 7, "\(result)")
            #expect(result.errors.contains("nothing was written"), "\(result)")
            #expect(!FileManager.default.fileExists(atPath: target))
        }
    }

    @Test(arguments: [1, 511, 4096, 1 << 20, (1 << 20) + 1])
    func `a stream of any size is replicated`(size: Int) throws {
        let result = try pipe("head -c \(size) source", "--verify", "-", target)
        #expect(result.status == 0, "\(result)")
        #expect(try must("stat", "-c", "%s", target) == "\(size)\n")
        #expect(try run("cmp", "-n", "\(size)", source, target).status == 0)
    }

    @Test func `a stream of another size than --size is an error`() throws {
        for (announced, reason) in [(size - 1, "goes on behind"), (size + 1, "ended after")] {
            let result = try pipe("cat source", "--size", "\(announced)", "-", target)
            #expect(result.status == 3 && result.errors.contains(reason), "\(result)")
            #expect(result.errors.contains("The target is incomplete"))
            #expect(result.output.contains("incomplete"))
        }
        let right = try pipe("cat source", "--size", "\(size)", "-", target)
        #expect(right.status == 0, "\(right)")
        #expect(try areEqual(source, target))
        // Known before anything is written.
        let new = scratch.file("new")
        let small = try pipe("head -c 1000 source", "--size", "2000", "-", new)
        #expect(small.status == 3 && small.errors.contains("Nothing was written"), "\(small)")
        #expect(!FileManager.default.fileExists(atPath: new))
    }

    @Test func `an empty stream is an error, and writes nothing`() throws {
        try must("cp", source, target)
        for command in ["true", ": closed", "exit 1"] {
            let result = try pipe(command, "-", target)
            #expect(result.status == 3 && result.errors.contains("it is empty"), "\(result)")
        }
        #expect(try run("sh", "-c", "\(program) - \(target) <&-").status == 3)
        #expect(try areEqual(source, target))
    }

    @Test func `a dry run writes nothing`() throws {
        let new = try pipe("cat source", "-n", "-", target)
        #expect(new.status == 0 && new.output.contains("would be created"), "\(new)")
        #expect(!FileManager.default.fileExists(atPath: target))
        try must("sh", "-c", "head -c 1M \(source) >\(target)")
        let before = try must("sha256sum", target)
        let result = try pipe("cat source", "-n", "--exit-code", "--json", "-", target)
        #expect(result.status == 1, "\(result)")
        #expect(try must("sha256sum", target) == before)
    }

    @Test func `verify compares with a stream`() throws {
        try must("cp", source, target)
        #expect(try pipe("cat source", "verify", "-", target).status == 0)
        let shorter = try pipe("head -c 5000000 source", "verify", "-", target)
        #expect(shorter.status == 1, "\(shorter)")
        #expect(shorter.output.contains("different sizes, 5000000 and \(size) bytes"))
        let prefix = try pipe(
            "head -c 5000000 source", "verify", "--size-policy", "prefix", "-", target)
        #expect(prefix.status == 0, "\(prefix)")
        let longer = try pipe("cat source source", "verify", "-", target)
        #expect(longer.status == 1, "\(longer)")
        #expect(longer.output.contains("different sizes, \(2 * size) and \(size) bytes"))
        try overwrite(target, [1], at: 5_000_000)
        #expect(try pipe("cat source", "verify", "-", target).status == 1)
    }

    @Test func `what cannot have a stream is wrong usage`() throws {
        try must("cp", source, target)
        for words in [
            ["-", "-"], [target, "-"], ["refresh", "-", target], ["benchmark", "-", target],
            ["--max-change", "5", "-", target], ["--snapshot", "-", target],
            ["--since", "x", "-", target], ["--skip-unreadable", "-", target],
            ["--create", "-", "group/volume"], ["--move-backup-gpt", "-", target],
            ["-", "http://localhost:1/x"], ["--size", "5", source, target],
            ["--size", "0", "-", target], ["verify", "--sample", "5", "-", target],
            ["digest", "-", "-o", "x"],
        ] {
            let result = try RunningProgram([program] + words).wait()
            #expect(result.status == 64, "\(words): \(result)")
        }
        #expect(try areEqual(source, target))
        let terminal = """
            import os, pty, sys
            status = pty.spawn(sys.argv[1:])
            sys.exit(os.waitstatus_to_exitcode(status))
            """
        let result = try run("python3", "-c", terminal, program, "-", target)
        #expect(result.status == 64 && result.output.contains("is a terminal"), "\(result)")
    }

    @Test func `the file of that name has a path`() throws {
        try must("sh", "-c", "cd \(scratch.path); cp source ./-")
        let result = try pipe("true", "./-", target)
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, target))
    }

    @Test func `a signal ends a run that waits for its producer`() throws {
        for count in [0, 3_000_000] {
            let fifo = scratch.file("fifo\(count)")
            try must("mkfifo", fifo)
            let running = try RunningProgram([
                "sh", "-c", "exec \(program) -q - \(target) <\(fifo)",
            ])
            let producer = try FileHandle(forUpdating: URL(fileURLWithPath: fifo))
            var random = SeededGenerator(seed: 3)
            try producer.write(contentsOf: Data(random.bytes(count)))
            if count > 0 {
                #expect(
                    try becomesTrue {
                        try must("sh", "-c", "stat -c %s \(target) 2>/dev/null || echo 0")
                            == "2097152\n"
                    })
            }
            #expect(try becomesTrue { try waitsForSignals(running) })
            running.signal(SIGTERM)
            #expect(try running.wait().status == 130)
            try producer.close()
        }
    }

    /// Whether SIGTERM would not simply end the process.
    private func waitsForSignals(_ running: RunningProgram) throws -> Bool {
        let masks = try run(
            "sed", "-n", "s/^Sig\\(Blk\\|Cgt\\):\\t//p", "/proc/\(running.processID)/status"
        ).output
        return masks.split(separator: "\n").contains { mask in
            (UInt64(mask, radix: 16) ?? 0) >> (SIGTERM - 1) & 1 == 1
        }
    }

    @Test(arguments: [
        ("xz -c", "an xz file"), ("gzip -c", "a gzip file"), ("bzip2 -c", "a bzip2 file"),
    ])
    func `a packed stream gives a warning`(command: String, phrase: String) throws {
        let result = try pipe("\(command) source", "-", target)
        #expect(result.status == 0, "\(result)")
        #expect(result.errors.contains("standard input: it is \(phrase), and is written as it is"))
        #expect(result.errors.contains("before the pipe unpacks it"))
    }

    @Test func `a push takes the size, and is the same`() throws {
        let directory = try scratch.directory("served", ofImages: 0, size: 4096)
        let server = try ServeProcess("\(directory)/:rw")
        let url = server.url("\(directory)/replica")
        for options in [["--verify"], ["--whole-file"], ["-c", "1"]] {
            let line = ([program] + options + ["--size", "\(size)", "-", url]).joined(
                separator: " ")
            let result = try run("sh", "-c", "cat \(source) | \(line)")
            #expect(result.status == 0, "\(options): \(result)")
            #expect(try areEqual(source, "\(directory)/replica"))
            try overwrite("\(directory)/replica", [UInt8](repeating: 7, count: 70_000), at: 2 << 20)
        }
        let result = try pipe("cat source source", "--size", "\(size)", "-", url)
        #expect(result.status == 3, "\(result)")
        try overwrite("\(directory)/replica", [7, 8, 9], at: size - 3)
        #expect(try pipe("cat source", "verify", "-", url).status == 1)
    }
}

/// Standard input as the source, with block devices.
@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct DeviceStreamTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let device: LoopDevice
    private let size = 8 << 20

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.filledFile("source", size: size, seed: 1)
        device = try LoopDevice(size: size)
    }

    private func pipe(_ command: String, _ arguments: String...) throws -> ProgramResult {
        let line = ([program] + arguments + ["-", device.path]).joined(separator: " ")
        return try run("sh", "-c", "cd \(scratch.path) && { \(command); } | \(line)")
    }

    @Test func `a stream of the device's size is replicated`() throws {
        for options in ["--verify", "--whole-file"] {
            #expect(try pipe("cat source", options).status == 0)
            #expect(try areEqual(source, device.path))
        }
    }

    @Test func `a longer stream is an error before anything is written beyond the end`() throws {
        let result = try pipe("cat source source")
        #expect(result.status == 3 && result.errors.contains("behind the target's end"))
    }

    @Test func `a shorter stream is an error, unless the size policy accepts it`() throws {
        let short = "head -c 5000000 source"
        let result = try pipe(short)
        #expect(result.status == 3 && result.errors.contains("ended after 5000000 bytes"))
        #expect(try pipe(short, "--size", "5000000").status == 2)
        let rest = try must("sh", "-c", "tail -c +5000001 \(device.path) | sha256sum")
        #expect(try pipe(short, "--size-policy", "prefix", "--verify").status == 0)
        #expect(try run("cmp", "-n", "5000000", source, device.path).status == 0)
        #expect(try must("sh", "-c", "tail -c +5000001 \(device.path) | sha256sum") == rest)
        #expect(try pipe(short, "--size-policy", "resize").status == 2)
        // A stream that ends within its first MiB has a known size.
        #expect(try pipe("head -c 1000000 source").status == 2)
    }

    @Test func `other content is refused, and superblocks behind the stream's end are removed`()
        throws
    {
        try must("mkswap", "--uuid", "11111111-2222-3333-4444-555555555555", device.path)
        let refused = try pipe("cat source")
        #expect(refused.status == 2 && refused.errors.contains("swap"), "\(refused)")
        try must("sgdisk", "-n", "1:0:0", device.path)
        let options = ["--size-policy", "prefix", "--overwrite"]
        let result = try pipe("head -c 3000000 source", options[0], options[1], options[2])
        #expect(result.status == 0, "\(result)")
        #expect(try must("wipefs", "-n", device.path) == "")
        #expect(try run("cmp", "-n", "3000000", source, device.path).status == 0)
    }

    @Test func `a stream that starts like the target is its replica`() throws {
        try must("mkfs.ext4", "-q", source)
        try must("dd", "if=\(source)", "of=\(device.path)", "bs=1M", "status=none")
        try overwrite(source, [1, 2, 3], at: 5 << 20)
        #expect(try pipe("cat source").status == 0)
        #expect(try areEqual(source, device.path))
        try must("mkfs.ext4", "-qF", source)
        #expect(try pipe("cat source").status == 2)
    }

    @Test func `a packed stream is refused without --overwrite`() throws {
        let before = try must("sha256sum", device.path)
        for command in ["xz -0c", "gzip -c", "bzip2 -c"] {
            let result = try pipe("\(command) source", "--size-policy", "prefix")
            #expect(result.status == 2 && result.errors.contains("before the pipe"), "\(result)")
        }
        #expect(try must("sha256sum", device.path) == before)
        try must("truncate", "-s", "6M", source)
        let asked = try pipe("xz -0c source", "--size-policy", "prefix", "--overwrite")
        #expect(asked.status == 0, "\(asked)")
    }

    @Test func `a stream from the target itself is refused`() throws {
        let line = "\(program) - \(device.path) <"
        for input in [device.path, device.backingFile] {
            let result = try run("sh", "-c", line + input)
            #expect(result.status == 2, "\(result)")
        }
        #expect(try run("sh", "-c", line + source).status == 0)
        #expect(try areEqual(source, device.path))
    }
}
