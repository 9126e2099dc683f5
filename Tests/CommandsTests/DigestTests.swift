// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// `blkferry digest` and `verify --digest`, against veritysetup and a program in Python.
@Suite(.blocking, .timeLimit(.minutes(60))) struct DigestTests {
    private let scratch: ScratchDirectory
    private let image: String
    private let file: String
    private let size = 3_000_000

    init() throws {
        scratch = try ScratchDirectory()
        image = try scratch.filledFile("image", size: size, seed: 1)
        file = scratch.file("digest")
    }

    private func digest(_ path: String) throws -> String {
        let result = try blkferry("digest", path, "-o", file)
        #expect(result.status == 0 && result.errors.isEmpty, "\(result)")
        return result.output.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// A hash tree by the kernel's documentation (device-mapper/verity.rst): the root hash, and the
    /// tree to a file.
    private static let reference = """
        import sys, hashlib
        known = {}
        def sha(b):
            if b not in known:
                known[b] = hashlib.sha256(b).digest()
            return known[b]
        zero = bytes(4096)
        level = []
        with open(sys.argv[1], 'rb') as f:
            while len(b := f.read(4096)) == 4096:
                level.append(sha(zero if b == zero else b))
        tail = hashlib.sha256(b).hexdigest() if b else None
        levels = []
        while len(level) > 1:
            starts = range(0, len(level), 128)
            blocks = [b''.join(level[i:i+128]).ljust(4096, b'\\0') for i in starts]
            levels.insert(0, blocks)
            level = [sha(b) for b in blocks]
        root = level[0].hex() if level else '0' * 64
        with open(sys.argv[2], 'wb') as f:
            for blocks in levels:
                f.writelines(blocks)
        print(root + (':' + tail if tail else ''))
        """

    /// Around the sizes at which another level begins, and devices without a whole block.
    private static let sizes: [Int] = {
        var sizes = [1, 4095, 4096, 4097, 8192, 3_000_000]
        for edge in [128 << 12, 128 * 128 << 12] {
            sizes += [-4096, -1, 0, 1, 4096].map { edge + $0 }
        }
        return sizes + [(128 * 128 * 128 << 12) + 4096]
    }()

    @Test(arguments: sizes)
    func `the tree is what Python and veritysetup compute`(size: Int) throws {
        let path = try scratch.sparseFile("device", size: size)
        for (seed, place) in [0, size / 3, size / 2, size - 5000].enumerated() {
            let offset = max(0, place)
            try fill(path, seed: UInt64(seed), size: min(20_000, size - offset), offset: offset)
        }
        let printed = try digest(path)
        let tree = scratch.file("tree")
        let expected = try must("python3", "-c", Self.reference, path, tree)
        #expect(printed == expected.trimmingCharacters(in: .newlines))
        let length = try FileManager.default.attributesOfItem(atPath: tree)[.size] as? Int ?? 0
        let written = try FileManager.default.attributesOfItem(atPath: file)[.size] as? Int
        #expect(written == 4096 + length + 4096)
        if length > 0 {
            let same = try run("cmp", "-n", "\(length)", "-i", "4096:0", file, tree)
            #expect(same.status == 0, "\(same)")
        }
        if size >= 4096 {
            let root = String(printed.prefix(64))
            try must("veritysetup", "verify", path, file, root)
            let theirs = scratch.file("theirs")
            let dump = "veritysetup dump \(file) | sed -n 's/^UUID:[ \\t]*//p'"
            let uuid = try must("sh", "-c", dump).trimmingCharacters(in: .newlines)
            let made = try must(
                "veritysetup", "format", "--salt=-", "--uuid=\(uuid)", path, theirs)
            #expect(made.contains(root))
            let end = size < 8192 ? 512 : 4096 + length
            #expect(try run("cmp", "-n", "\(end)", file, theirs).status == 0)
        }
        #expect(try blkferry("verify", "--digest", file, path).status == 0)
        // The last byte, in the tail or in the last block.
        try overwrite(path, [0x5a], at: size - 1)
        #expect(try blkferry("verify", "--digest", file, path).status == 1)
    }

    @Test func `the last line has the size, both digests and their seal`() throws {
        let printed = try digest(image).split(separator: ":")
        let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: file)))
        let line = String(decoding: bytes.suffix(4096).prefix { $0 != 10 }, as: UTF8.self)
        let start =
            "blkferry-digest 1 size=\(size) root=\(printed[0]) tail=\(printed[1])"
        let tail = try must("sh", "-c", "tail -c \(size % 4096) \(image) | sha256sum")
        #expect(tail.hasPrefix(printed[1]))
        let sum = try must(
            "sh", "-c", "{ head -c 512 \(file); printf %s '\(start)'; } | sha256sum"
        ).prefix(64)
        #expect(line == "\(start) sum=\(sum)")
    }

    @Test func `equal devices have equal files, and a second run replaces the first`() throws {
        let first = try digest(image)
        let copy = scratch.file("copy")
        let other = scratch.file("other")
        try must("cp", image, copy)
        try must("cp", file, other)
        #expect(try digest(copy) == first)
        #expect(try areEqual(file, other))
        try overwrite(copy, [1, 2, 3], at: 4096)
        #expect(try digest(copy) != first)
        #expect(try !areEqual(file, other))
    }

    @Test func `differing blocks are listed`() throws {
        _ = try digest(image)
        try overwrite(image, [1, 2], at: 4095)
        try overwrite(image, [3], at: size - 1)
        let (result, json) = try blkferryJSON("verify", "--digest", file, image)
        #expect(result.status == 1)
        #expect(json.int("differentBlocks") == 3)
        let ranges = try #require(json.records("firstDifferences"))
        #expect(ranges.map { $0.int("offset") } == [0, size / 4096 * 4096])
        #expect(ranges.map { $0.int("length") } == [8192, size % 4096])
        #expect(json.string("digest") == "sha256" && json.string("source") == file)
    }

    @Test(arguments: [2_999_999, 3_000_001, 4096 * 700, 3_002_368])
    func `another size is a difference`(other: Int) throws {
        _ = try digest(image)
        try must("truncate", "-s", "\(other)", image)
        let result = try blkferry("verify", image, "--digest=\(file)")
        #expect(result.status == 1, "\(result)")
        #expect(result.output.contains("different sizes, \(size) and \(other) bytes"))
        let prefix = try blkferry("verify", "--digest", file, "--size-policy", "prefix", image)
        #expect(prefix.status == (other > size ? 0 : 1), "\(prefix)")
    }

    @Test func `no damaged byte of the file goes unnoticed`() throws {
        _ = try digest(image)
        let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: file)))
        // The first block has a superblock of 512 bytes, and then nothing.
        var random = SeededGenerator(seed: 7)
        let places =
            Array(0..<512).filter { _ in Bool.random(using: &random) }
            + (0..<60).map { _ in Int.random(in: 4096..<bytes.count, using: &random) }
            + [4096, bytes.count - 1, bytes.count - 4096, bytes.count - 4097]
        for place in places {
            let bit = UInt8.random(in: 0..<8, using: &random)
            try overwrite(file, [bytes[place] ^ 1 << bit], at: place)
            // The file is refused before the device is looked for.
            let result = try blkferry("verify", "--digest", file, scratch.file("missing"))
            #expect(result.status == 2, "\(place): \(result)")
            try overwrite(file, [bytes[place]], at: place)
        }
        #expect(try blkferry("verify", "--digest", file, image).status == 0)
    }

    @Test(arguments: [0, 1, 511, 512, 4096, 8192, 32768, 36863, 36865])
    func `a file that is cut off or continued is refused`(length: Int) throws {
        _ = try digest(image)
        try must("truncate", "-s", "\(length)", file)
        let result = try blkferry("verify", "--digest", file, image)
        #expect(result.status == 2, "\(result)")
    }

    @Test func `a root hash pins the file`() throws {
        let pin = try digest(image)
        let root = String(pin.prefix(64))
        #expect(
            try blkferry("verify", "--digest", file, "--root-hash", pin.uppercased(), image).status
                == 0)
        let other = String(root.reversed())
        #expect(try blkferry("verify", "--digest", file, "--root-hash", other, image).status == 2)
        let short = try blkferry("verify", "--digest", file, "--root-hash", root, image)
        #expect(short.status == 2 && short.errors.contains("does not cover"), "\(short)")
        #expect(try blkferry("verify", "--digest", file, "--root-hash", "12", image).status == 64)
        #expect(try blkferry("verify", "--root-hash", pin, image, image).status == 64)
    }

    @Test func `a file of veritysetup takes its root hash`() throws {
        try must("truncate", "-s", "2M", image)
        let made = try must("veritysetup", "format", "--salt=-", image, file)
        let root = try #require(made.firstMatch(of: /Root hash:\s+([0-9a-f]{64})/)?.1)
        let bare = try blkferry("verify", "--digest", file, image)
        #expect(bare.status == 2 && bare.errors.contains("--root-hash"), "\(bare)")
        #expect(
            try blkferry("verify", "--digest", file, "--root-hash", String(root), image).status
                == 0)
        let wrong = String(root.reversed())
        #expect(try blkferry("verify", "--digest", file, "--root-hash", wrong, image).status == 2)
        try overwrite(image, [1, 2, 3, 4], at: 1 << 20)
        #expect(
            try blkferry("verify", "--digest", file, "--root-hash", String(root), image).status
                == 1)
    }

    @Test(arguments: [
        ["--salt=00ff"], ["--hash=sha512", "--salt=-"], ["--hash-block-size=1024", "--salt=-"],
        ["--data-block-size=1024", "--salt=-"], ["--format=0", "--salt=-"],
    ])
    func `another kind of tree is refused`(options: [String]) throws {
        try must("truncate", "-s", "2M", image)
        try must(["veritysetup", "format"] + options + [image, file])
        let pin = String(repeating: "a", count: 64)
        let result = try blkferry("verify", "--digest", file, "--root-hash", pin, image)
        #expect(result.status == 2, "\(result)")
    }

    @Test func `only a file of an earlier run is replaced`() throws {
        let other = try scratch.filledFile("other", size: 8192, seed: 3)
        let before = try [UInt8](Data(contentsOf: URL(fileURLWithPath: other)))
        for path in [other, image, scratch.path, "/dev/null", "/dev/blkferry-digest"] {
            let result = try blkferry("digest", image, "-o", path)
            #expect(result.status == 2, "\(path): \(result)")
        }
        #expect(try [UInt8](Data(contentsOf: URL(fileURLWithPath: other))) == before)
        _ = try digest(image)
        #expect(try blkferry("digest", file, "-o", file).status == 2)
        #expect(try blkferry("digest", image, "-o", scratch.file("no/file")).status == 3)
        for option in ["-o-", "--output=", "--output=\(scratch.path)/"] {
            #expect(try blkferry("digest", image, option).status == 64)
        }
        #expect(try must("ls", scratch.path) == "digest\nimage\nother\n")
    }

    @Test func `the file is on the medium before it has its name`() throws {
        let trace = scratch.file("trace")
        let traced = try RunningProgram([
            "strace", "-f", "-o", trace, "-e", "trace=fsync,rename,renameat,renameat2,pwrite64",
            program, "digest", image, "-o", file,
        ]).wait()
        #expect(traced.status == 0)
        let calls = try systemCalls(inTrace: trace).map {
            String($0.drop { $0 != " " }.drop { $0 == " " }.prefix { $0 != "(" })
        }.filter { $0 == "fsync" || $0 == "pwrite64" || $0.hasPrefix("rename") }
        let rename = try #require(calls.firstIndex { $0.hasPrefix("rename") })
        #expect(calls[rename - 1] == "fsync" && calls[rename + 1] == "fsync")
        #expect(calls[..<(rename - 1)].allSatisfy { $0 == "pwrite64" })
    }

    @Test func `an interrupted run leaves no file`() throws {
        // Many windows: the reads before the first one are delayed as well.
        try must("sh", "-c", "head -c 60M /dev/urandom >\(image)")
        let slow = try RunningProgram(
            slowReads(by: 50) + [program, "digest", "-c", "1", image, "-o", file])
        #expect(try becomesTrue { try must("ls", scratch.path).contains("draft") })
        slow.signal(SIGTERM)
        let result = try slow.wait()
        #expect(result.status == 130, "\(result)")
        #expect(try must("ls", scratch.path) == "image\n")
    }

    @Test func `what cannot be combined is wrong usage`() throws {
        _ = try digest(image)
        for words in [
            ["--skip-unreadable"], ["--base"], ["-b", "8K"], ["-m", "md5"], ["--replica", "x"],
            ["http://localhost/x"], ["--digest", "x"],
        ] {
            let result = try RunningProgram([program, "verify", "--digest", file, image] + words)
                .wait()
            #expect(result.status == 64, "\(words): \(result)")
        }
        #expect(try blkferry("verify", "--digest", file).status == 64)
        #expect(try blkferry("verify", image, "--digest").status == 64)
        #expect(try blkferry("verify", "--digest", "-", image).status == 64)
    }

    @Test(.enabled(if: isRoot)) func `a block device and an export have the same tree`() throws {
        let loop = try LoopDevice(size: 5 << 20)
        try fill(loop.path, seed: 9, size: 5 << 20)
        let printed = try digest(loop.path)
        #expect(try blkferry("verify", "--digest", file, loop.path).status == 0)
        let behind = try blkferry("digest", loop.backingFile, "-o", file)
        #expect(behind.status == 0 && behind.output == printed + "\n")
        let server = try ServeProcess(loop.path)
        #expect(try digest(server.url(loop.path)) == printed)
        try overwrite(loop.path, [1], at: 12345)
        let different = try blkferry("verify", "--digest", file, loop.path)
        #expect(different.status == 1 && different.output.contains("offset 12288, length 4096"))
    }
}
