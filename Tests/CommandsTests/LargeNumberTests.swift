// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

@testable import Commands

/// Sizes and blocks at the ends of what there is.
@Suite(.blocking, .timeLimit(.minutes(60))) struct LargeNumberTests {
    private let scratch: ScratchDirectory

    init() throws { scratch = try ScratchDirectory() }

    @Test(arguments: [(Int.max, 1e-9), (1 << 60, 1e-4), (4 << 50, 3e-4), (1, 1e-300), (0, 0.1)])
    func `a rate may be larger than an integer`(bytes: Int, seconds: Double) {
        let text = Format.rate(bytes, seconds)
        #expect(text.hasSuffix("/s") || text == "?")
    }

    @Test func `a rate has the same form as a number of bytes`() {
        #expect(Format.rate(1 << 60, 0.001) == "1000 EiB/s")
        #expect(Format.rate(1 << 20, 1) == "1.00 MiB/s" && Format.rate(512, 2) == "256 B/s")
    }

    @Test(.enabled(if: isRoot), arguments: [4 << 50, 1 << 60])
    func `a sparse image of many PiB is synced, compared and dry-run`(size: Int) throws {
        let directory = try TemporaryFileSystem(size: 1 << 20)
        let (source, target) = (directory.path + "/source", directory.path + "/target")
        for path in [source, target] {
            try #require(FileManager.default.createFile(atPath: path, contents: nil))
            try #require(truncate(path, off_t(size)) == 0)
        }
        try overwrite(source, [1, 2, 3], at: size - 4096)
        #expect(try blkferry("--dry-run", source, target).status == 0)
        let sync = try blkferry(source, target)
        #expect(sync.status == 0 && sync.output.contains("/s"), "\(sync)")
        let verify = try blkferry("verify", source, target)
        #expect(verify.status == 0 && verify.output.contains("identical"), "\(verify)")
    }

    @Test(.enabled(if: isRoot)) func `an image beyond all sizes is refused in one line`() throws {
        let directory = try TemporaryFileSystem(size: 1 << 20)
        let source = directory.path + "/source"
        try #require(FileManager.default.createFile(atPath: source, contents: nil))
        try #require(truncate(source, off_t(Int.max) / 4096 * 4096) == 0)
        for arguments in [[source, directory.path + "/t"], ["verify", source, source + "x"]] {
            try #require(FileManager.default.createFile(atPath: source + "x", contents: nil))
            let result = try RunningProgram([program] + arguments).wait()
            #expect(result.status == 3 && result.errors.contains("are the most"), "\(result)")
        }
    }

    @Test(.enabled(if: isRoot))
    func `a server of an image of many PiB answers what it can, and stays`() throws {
        let directory = try TemporaryFileSystem(size: 1 << 20)
        let image = directory.path + "/image"
        try #require(FileManager.default.createFile(atPath: image, contents: nil))
        for size in [1 << 60, Int.max / 4096 * 4096] {
            try #require(truncate(image, off_t(size)) == 0)
            let server = try ServeProcess(image)
            let base = "http://127.0.0.1:\(server.port)"
            for query in ["block_size=1", "block_size=512", "block_size=67108864"] {
                let status = try must(
                    "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-I",
                    "\(base)/hashes?filename=\(image)&\(query)")
                #expect(["200", "400", "500"].contains(status), "\(query): \(status)")
            }
            _ = try must(
                "curl", "-sS", "-o", "/dev/null", "-r", "-5", server.url("/v1/devices/x/content"))
            let list = try blkferry("list", base)
            #expect(list.status == 0 && list.output.contains("EiB"), "\(list)")
            let pull = try blkferry(server.url(image), directory.path + "/copy")
            #expect([0, 3, 4].contains(pull.status), "\(pull)")
            #expect(server.process.isRunning)
        }
    }

    @Test(arguments: ["3M", "4M", "5M", "10M", "16M", "2049K"], [[], ["-W"]])
    func `blocks larger than a request go over the network`(
        block: String, options: [String]
    ) throws {
        let there = scratch.file("there")
        try FileManager.default.createDirectory(atPath: there, withIntermediateDirectories: true)
        let server = try ServeProcess("\(there)/:rw")
        let size = (37 << 20) + 4096
        let source = try scratch.sparseFile("source", size: size)
        try fill(source, seed: 3, size: 21 << 20, offset: 1 << 20)
        let (url, back) = (server.url("\(there)/image"), scratch.file("back"))
        for _ in 0..<2 {
            let push = try RunningProgram([program, "-b", block] + options + [source, url]).wait()
            #expect(push.status == 0, "\(push)")
            #expect(try areEqual(source, "\(there)/image"))
            let pull = try RunningProgram([program, "-b", block] + options + [url, back]).wait()
            #expect(pull.status == 0, "\(pull)")
            #expect(try areEqual(source, back))
            try fill(source, seed: 4, size: 9 << 20, offset: 7 << 20)
        }
    }
}

/// scp's form of a location.
@Suite(.blocking, .timeLimit(.minutes(60))) struct ScpFormTests {
    @Test(arguments: [
        "root@backup:disk.img", "backup:disk.img", "C:", "a:b", "[::1]:x", "uuid=aa-1",
        "Label=data",
        "partuuid=x", "ID=wwn-0x5000", "WWN=0x5000", "NAME=x", "serial=x",
    ])
    func `a host and a colon, or a misspelled tag, never create a local file`(name: String) throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("a.img", size: 1 << 20)
        let command = ["sh", "-c", "cd \"$0\" && exec \"$@\"", scratch.path, program]
        for words in [[source, name], [name, source], ["verify", source, name]] {
            let result = try RunningProgram(command + words).wait()
            #expect(result.status == 64, "\(result)")
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == ["a.img"])
        let local = try RunningProgram(command + ["-q", source, "./\(name)"]).wait()
        #expect(local.status == 0, "\(local)")
        #expect(FileManager.default.fileExists(atPath: scratch.file(name)))
    }

    @Test func `a host and an absolute path are reached by ssh`() throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("a.img", size: 1 << 20)
        let log = scratch.file("log")
        let ssh = "sh -c 'echo \"$@\" >\(log); exit 255' ssh"
        for words in [["sync", source, "me@backup:/x y.img"], ["list", "me@backup:"]] {
            let result = try RunningProgram(
                [program] + words + ["--ssh-command", ssh]
            ).wait()
            #expect(result.status == 4, "\(result)")
            let told = try String(contentsOfFile: log, encoding: .utf8)
            #expect(told.contains("-l me -- backup blkferry serve --stdio"), "\(told)")
            #expect(told.contains(words[0] == "list" ? "--export-all" : "'/x y.img:rw'"), "\(told)")
        }
    }
}
