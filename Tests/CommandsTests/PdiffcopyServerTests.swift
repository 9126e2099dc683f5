// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// `sync` and `verify` with a file on a server of the real pdiffcopy: what needs no root.
@Suite(.blocking, .timeLimit(.minutes(60))) struct PdiffcopyServerTests {
    private let scratch: ScratchDirectory
    private let there: String
    private let server: Pdiffcopy.Server
    private let source: String
    private let size = (5 << 20) + 777

    init() throws {
        scratch = try ScratchDirectory()
        there = scratch.file("there")
        try FileManager.default.createDirectory(atPath: there, withIntermediateDirectories: false)
        server = try Pdiffcopy.Server()
        source = try scratch.filledFile("source", size: size, seed: 1)
    }

    private func url(_ name: String) -> String { server.url("\(there)/\(name)") }

    /// How often the server was asked to write or resize.
    private func posts() throws -> Int {
        // It logs no requests; what it does with them it says.
        try server.log().split(separator: "\n")
            .count { $0.contains("Resizing ") || $0.contains("Creating ") }
    }

    @Test func `a push creates the image, and a second one has nothing to do`() throws {
        let (first, json) = try blkferryJSON("--verify", source, url("image"))
        #expect(first.status == 0, "\(first)")
        #expect(json.bool("created") == true && json.bool("verified") == true)
        #expect(json.int("written") == size && json.int("resizedTo") == size)
        #expect(json.int("blockSize") == 1 << 20)
        #expect(json.bool("flushed") == false, "nobody knows")
        #expect(json.strings("warnings")?.contains { $0.contains("does not flush") } == true)
        #expect(try areEqual(source, "\(there)/image"))

        let (second, again) = try blkferryJSON("--verify", source, url("image"))
        #expect(second.status == 0, "\(second)")
        #expect(again.int("written") == 0 && again.int("zeroed") == 0)
        #expect(again.bool("created") == false && again.bool("verified") == true)

        let text = try blkferry(source, url("image"))
        #expect(text.output.contains(": synced, not flushed\n"), "\(text)")
        #expect(text.errors.components(separatedBy: "a pdiffcopy server").count == 2, "once")
    }

    @Test(
        arguments: [nil, "sha1", "md5", "sha256", "blake2b", "sha3_256", "blake2s"],
        [[], ["--whole-file"]])
    func `push, pull and verify work with the digests that both programs have`(
        method: String?, flags: [String]
    ) throws {
        let digest = method.map { ["-m", $0] } ?? []
        let back = scratch.file("back")
        let push = try RunningProgram([program] + flags + digest + [source, url("image")]).wait()
        #expect(push.status == 0, "\(push)")
        #expect(try areEqual(source, "\(there)/image"))
        try overwrite("\(there)/image", [1, 2, 3], at: 3_000_000)
        let verify = [program, "verify"] + digest
        #expect(try RunningProgram(verify + [source, url("image")]).wait().status == 1)
        let pull = try RunningProgram([program] + flags + digest + [url("image"), back]).wait()
        #expect(pull.status == 0, "\(pull)")
        #expect(try areEqual("\(there)/image", back))
        #expect(try RunningProgram(verify + [url("image"), back]).wait().status == 0)
        #expect(try RunningProgram(verify + [back, url("image")]).wait().status == 0)
    }

    @Test func `the error names a digest that pdiffcopy may lack`() throws {
        for method in ["poly1305", "gmac", "sha512-256"] {
            let result = try blkferry("-m", method, source, url("image"))
            #expect(result.status == 4, "\(method): \(result)")
            #expect(result.errors.contains("digest \(method)") && result.errors.contains("sha1"))
        }
        #expect(!FileManager.default.fileExists(atPath: "\(there)/image"))
    }

    @Test(
        arguments: ["4K", "64K", "1M", "2M", "5K", "16M"],
        [1, 511, 1 << 20, (1 << 20) + 1, (5 << 20) + 777])
    func `every block size works with every length`(block: String, size: Int) throws {
        let image = try scratch.filledFile("odd", size: size, seed: 5)
        let old = try scratch.sparseFile("there/odd", size: size)
        let back = try scratch.sparseFile("back", size: size)
        let push = try blkferry("-b", block, "--verify", image, url("odd"))
        #expect(push.status == 0, "\(push)")
        #expect(try areEqual(image, old))
        // No text, which would be refused as the target of the push below.
        try overwrite(old, [200], at: size / 2)
        let differ = try blkferryJSON("verify", "-b", block, url("odd"), image)
        #expect(differ.result.status == 1 && differ.json.int("differentBlocks") == 1)
        let pull = try blkferryJSON("-b", block, "--verify", url("odd"), back)
        #expect(pull.result.status == 0, "\(pull.result)")
        #expect(try areEqual(old, back))
        let (again, json) = try blkferryJSON("-b", block, "-c", "2", image, url("odd"))
        #expect(again.status == 0 && json.int("differentBlocks") == 1)
        #expect(try areEqual(image, old))
    }

    @Test(arguments: [0, 512, 1_000_448, 8 << 20])
    func `an image is resized to the source on either side, as a dry run says`(old: Int) throws {
        let image = try scratch.sparseFile("there/image", size: old)
        if old > 2 { try overwrite(image, [1, 2], at: old / 2) }
        let before = try [UInt8](contentsOf: image)
        let (dry, told) = try blkferryJSON("-n", source, url("image"))
        #expect(dry.status == 0, "\(dry)")
        #expect(try [UInt8](contentsOf: image) == before)
        #expect(try posts() == 0)
        let (pushed, json) = try blkferryJSON("--verify", source, url("image"))
        #expect(pushed.status == 0, "\(pushed)")
        for key in ["compared", "different", "differentBlocks", "targetSize", "resizedTo"] {
            #expect(told.int(key) == json.int(key), "\(key)")
        }
        #expect(json.int("targetSize") == old && json.int("resizedTo") == size)
        #expect(try areEqual(source, image))
        let back = try scratch.sparseFile("back", size: old)
        let pulled = try blkferry("--verify", url("image"), back)
        #expect(pulled.status == 0, "\(pulled)")
        #expect(try areEqual(source, back))
    }

    @Test func `a dry run creates nothing`() throws {
        let (missing, json) = try blkferryJSON("-n", source, url("missing"))
        #expect(missing.status == 0, "\(missing)")
        #expect(json.int("different") == size && json.bool("created") == true)
        #expect(try blkferry("-n", "--exit-code", source, url("missing")).status == 1)
        #expect(!FileManager.default.fileExists(atPath: "\(there)/missing"))
    }

    @Test func `zeros are recognized, and a hole in the source sends no data`() throws {
        let sparse = try scratch.sparseFile("sparse", size: size)
        try fill(sparse, seed: 2, size: 4096, offset: 2 << 20)
        try must("cp", source, "\(there)/image")
        let (push, json) = try blkferryJSON("--verify", sparse, url("image"))
        #expect(push.status == 0, "\(push)")
        #expect(json.int("written") == 1 << 20 && json.int("zeroed") == size - (1 << 20))
        #expect(try areEqual(sparse, "\(there)/image"))
        let back = scratch.file("back")
        #expect(try blkferry(url("image"), back).status == 0)
        #expect(try areEqual(sparse, back))
        let blocks = try must("stat", "-c", "%b", back).dropLast()
        #expect(try #require(Int(blocks)) * 512 < 2 << 20)
    }

    @Test func `size policies refuse and prefix work with a pdiffcopy server`() throws {
        let small = try scratch.sparseFile("there/small", size: 4096)
        let large = try scratch.sparseFile("there/large", size: 8 << 20)
        try overwrite(large, [7], at: size)
        for arguments in [
            ["--size-policy", "refuse", "small"], ["--size-policy", "prefix", "small"],
            ["--size-policy", "refuse", "large"],
        ] {
            let result = try RunningProgram(
                [program] + arguments.dropLast() + [source, url(arguments[2])]
            ).wait()
            #expect(result.status == 2, "\(arguments): \(result)")
            #expect(result.errors.contains("refused: it has "))
        }
        #expect(try [UInt8](contentsOf: small).count == 4096)
        #expect(try posts() == 0)
        #expect(
            try blkferry("--size-policy", "prefix", "--verify", source, url("large")).status == 0)
        let bytes = try [UInt8](contentsOf: large)
        #expect(bytes.count == 8 << 20 && bytes[size] == 7)
        #expect(try bytes.prefix(size).elementsEqual([UInt8](contentsOf: source)))
        #expect(try blkferry("verify", source, url("large")).status == 1)
        #expect(try blkferry("verify", "--size-policy", "prefix", source, url("large")).status == 0)
    }

    @Test func `content of the image is not overwritten, and a replica may be refreshed`() throws {
        let foreign = try scratch.sparseFile("there/image", size: 8 << 20)
        try must("mkfs.ext4", "-q", "-L", "precious", foreign)
        let before = try [UInt8](contentsOf: foreign)
        for flags in [[], ["-n"]] {
            let result = try RunningProgram([program] + flags + [source, url("image")]).wait()
            #expect(result.status == 2, "\(result)")
            for word in ["ext4", "\"precious\"", "--overwrite", "refused"] {
                #expect(result.errors.contains(word), "\(result.errors)")
            }
        }
        #expect(try [UInt8](contentsOf: foreign) == before)
        // The same file system, older, on either side.
        let mine = try scratch.sparseFile("mine", size: 8 << 20)
        try must("cp", foreign, mine)
        try fill(mine, seed: 3, size: 4096, offset: 7 << 20)
        #expect(try blkferry(mine, url("image")).status == 0)
        try fill(foreign, seed: 4, size: 4096, offset: 6 << 20)
        #expect(try blkferry(url("image"), mine).status == 0, "the gate here knows the source's")
        #expect(try areEqual(foreign, mine))
        #expect(try blkferry("--overwrite", source, url("image")).status == 0)
        #expect(try areEqual(source, foreign))
    }

    @Test func `a missing image, or a directory, is an error of one line`() throws {
        let missing = try blkferry(url("missing"), scratch.file("x"))
        #expect(missing.status == 3, "\(missing)")
        #expect(missing.errors.contains("No such file"))
        let directory = try blkferry("--overwrite", source, server.url(there))
        #expect(
            directory.status == 4 && directory.errors.contains("answers HTTP 500"), "\(directory)")
        let tag = try blkferry(source, "http://127.0.0.1:\(server.port)/UUID=1234")
        #expect(tag.status == 4 && tag.errors.contains("by their paths alone"), "\(tag)")
        _ = try scratch.sparseFile("there/empty", size: 0)
        for arguments in [[url("empty"), source], ["verify", source, url("empty")]] {
            let empty = try RunningProgram([program] + arguments).wait()
            #expect(empty.status == 3 && empty.errors.contains("its size is 0"), "\(empty)")
        }
        for path in ["/dev/null", "/dev/no-such-disk"] {
            let result = try blkferry(source, server.url(path))
            #expect(result.status == 2 && result.errors.contains("no devices"), "\(result)")
        }
        #expect(try posts() == 0)
    }

    @Test func `names with odd letters are the same on both sides`() throws {
        let name = "with space & more=1+2 %41?ü#"
        let encoded = "with%20space%20&%20more=1+2%20%2541%3F%C3%BC%23"
        let result = try blkferry(source, url(encoded))
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, "\(there)/\(name)"))
    }

    @Test(arguments: [true, false])
    func `a server that ends in the middle ends the run with 4`(isPush: Bool) throws {
        let large = try scratch.filledFile("large", size: 24 << 20, seed: 9)
        try must("cp", large, "\(there)/large")
        let target = try scratch.sparseFile(isPush ? "there/image" : "image", size: 24 << 20)
        let (from, to) = isPush ? (large, url("image")) : (url("large"), target)
        let sync = try RunningProgram(
            [program, "--json", "-c", "2", "--bwlimit", "1M", from, to])
        let wanted = try [UInt8](contentsOf: large, count: 4096)
        while sync.isRunning, (try? [UInt8](contentsOf: target, count: 4096)) != wanted {
            usleep(2_000)
        }
        try server.stop()
        let result = try sync.wait()
        #expect(result.status == 4, "\(result)")
        #expect(result.errors.contains("blkferry: \(server.url("")) ") == false)
        #expect(try !areEqual(large, target))
    }

    @Test func `a signal ends the run in order, and a second run finishes the job`() throws {
        let source = try scratch.filledFile("large", size: 24 << 20, seed: 9)
        let target = try scratch.sparseFile("there/image", size: 24 << 20)
        let sync = try RunningProgram(
            [program, "--json", "-c", "2", "--bwlimit", "1M", source, url("image")])
        let wanted = try [UInt8](contentsOf: source, count: 4096)
        while sync.isRunning, (try? [UInt8](contentsOf: target, count: 4096)) != wanted {
            usleep(2_000)
        }
        sync.signal(SIGINT)
        let result = try sync.wait()
        #expect(result.status == 130, "\(result)")
        #expect(try !areEqual(source, target))
        #expect(try blkferry(source, url("image")).status == 0)
        #expect(try areEqual(source, target))
    }
}

/// Block devices of this machine, and files on a server of the real pdiffcopy.
@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct PdiffcopyDeviceTests {
    private let size = 16 << 20

    @Test(arguments: [512, 4096], [[], ["-b", "512"]])
    func `a device is copied to a pdiffcopy server and back`(sector: Int, flags: [String]) throws {
        let scratch = try ScratchDirectory()
        let server = try Pdiffcopy.Server()
        let source = try LoopDevice(size: size, sectorSize: sector)
        try must("mkfs.ext4", "-q", "-L", "one", source.path)
        try fill(source.path, seed: 1, size: 2 << 20, offset: 12 << 20)
        let back = try LoopDevice(size: size, sectorSize: sector)
        let url = server.url(scratch.file("image"))
        for arguments in [
            [source.path, url], ["--verify", source.path, url], [url, back.path],
            ["--verify", url, back.path], ["verify", source.path, url], ["verify", url, back.path],
        ] {
            let result = try RunningProgram(
                [program] + (arguments[0] == "verify" ? ["verify"] : []) + flags
                    + arguments.filter { $0 != "verify" }
            ).wait()
            #expect(result.status == 0, "\(arguments): \(result)")
        }
        #expect(try areEqual(source.path, scratch.file("image")))
        #expect(try areEqual(source.path, back.path))
        let smaller = try LoopDevice(size: size / 2)
        #expect(try blkferry(url, smaller.path).status == 2)
    }

    @Test func `a device on a pdiffcopy server is refused`() throws {
        let scratch = try ScratchDirectory()
        let server = try Pdiffcopy.Server()
        let device = try LoopDevice(size: size)
        try must("mkfs.ext4", "-q", device.path)
        let before = try must("sha256sum", device.path)
        let image = try scratch.sparseFile("image", size: size)
        for arguments in [
            [image, server.url(device.path)], ["--overwrite", image, server.url(device.path)],
            [server.url(device.path), image],
        ] {
            let result = try RunningProgram([program] + arguments).wait()
            #expect(result.status == 3, "\(arguments): \(result)")
            #expect(result.errors.contains("it is a device"))
            #expect(result.errors.contains("blkferry serve"))
        }
        #expect(try must("sha256sum", device.path) == before)
    }
}
