// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// `sync`, `verify` and `list` with images on a server: what needs no root.
@Suite(.blocking, .timeLimit(.minutes(60))) struct RemoteImageTests {
    private let scratch: ScratchDirectory
    private let there: String
    private let server: ServeProcess
    private let source: String
    private let size = (5 << 20) + 1

    init() throws {
        scratch = try ScratchDirectory()
        there = scratch.file("there")
        try FileManager.default.createDirectory(atPath: there, withIntermediateDirectories: false)
        server = try ServeProcess("\(there)/:rw")
        source = try scratch.filledFile("source", size: size, seed: 1)
    }

    private func url(_ name: String) -> String { server.url("\(there)/\(name)") }

    @Test func `an image is created on the server, verified, and a second push has nothing to do`()
        throws
    {
        let first = try blkferryJSON("--verify", source, url("image"))
        #expect(first.result.status == 0, "\(first.result)")
        #expect(first.json.bool("created") == true)
        #expect(first.json.bool("flushed") == true)
        #expect(first.json.bool("verified") == true)
        #expect(first.json.int("written") == size)
        #expect(first.json.int("resizedTo") == size)
        #expect(try areEqual(source, "\(there)/image"))

        let second = try blkferryJSON("--verify", source, url("image"))
        #expect(second.result.status == 0)
        #expect(second.json.bool("created") == false)
        #expect(second.json.int("written") == 0 && second.json.int("zeroed") == 0)
        #expect(second.json.double("similarity") == 100)
    }

    @Test(arguments: ["gmac", "poly1305", "sha1", "sha256", "blake2b512"], [[], ["--whole-file"]])
    func `push, pull and verify work with every digest`(method: String, flags: [String]) throws {
        let back = scratch.file("back")
        let push = try RunningProgram([program] + flags + ["-m", method, source, url("image")])
            .wait()
        #expect(push.status == 0, "\(push)")
        try overwrite("\(there)/image", [1, 2, 3], at: 1_000_000)
        let differ = try blkferryJSON("verify", "-m", method, source, url("image"))
        #expect(differ.result.status == 1)
        #expect(differ.json.int("differentBlocks") == 1)
        #expect(differ.json.string("digest") == method)
        #expect(differ.json.records("firstDifferences")?.first?.int("offset") == 999_424)
        let pull = try RunningProgram([program] + flags + ["-m", method, url("image"), back]).wait()
        #expect(pull.status == 0, "\(pull)")
        #expect(try areEqual("\(there)/image", back))
        #expect(try blkferry("verify", "-m", method, url("image"), back).status == 0)
    }

    @Test func `a dry run writes nothing on either side and reports what a run would do`() throws {
        let missing = try blkferryJSON("-n", source, url("missing"))
        #expect(missing.result.status == 0)
        #expect(missing.json.int("different") == size)
        #expect(!FileManager.default.fileExists(atPath: "\(there)/missing"))
        #expect(try blkferry("-n", "--exit-code", source, url("missing")).status == 1)

        _ = try blkferry(source, url("image"))
        try overwrite("\(there)/image", [1, 2, 3], at: 1_000_000)
        let before = try [UInt8](contentsOf: "\(there)/image")
        let dry = try blkferryJSON("-n", source, url("image"))
        #expect(dry.json.int("written") == 0)
        #expect(try [UInt8](contentsOf: "\(there)/image") == before)
        let wet = try blkferryJSON(source, url("image"))
        for key in ["compared", "different", "differentBlocks"] {
            #expect(dry.json.int(key) == wet.json.int(key), "\(key)")
        }
        #expect(wet.json.int("written") == 4096)
    }

    @Test(arguments: [0, 1, 1_000_000, 8 << 20])
    func `an image is resized to the source on either side`(old: Int) throws {
        let image = try scratch.sparseFile("there/image", size: old)
        let (pushed, json) = try blkferryJSON("--verify", source, url("image"))
        #expect(pushed.status == 0, "\(pushed)")
        #expect(json.int("targetSize") == old && json.int("resizedTo") == size)
        #expect(try areEqual(source, image))
        let back = try scratch.sparseFile("back", size: old)
        let pulled = try blkferry("--verify", url("image"), back)
        #expect(pulled.status == 0, "\(pulled)")
        #expect(try areEqual(source, back))
    }

    @Test func `size policies refuse and prefix work on a server as they do locally`() throws {
        let small = try scratch.sparseFile("there/small", size: 4096)
        let large = try scratch.sparseFile("there/large", size: 8 << 20)
        for policy in ["refuse", "prefix"] {
            let new = try blkferry("--size-policy", policy, source, url("new-\(policy)"))
            #expect(new.status == 0, "\(new)")
            #expect(try areEqual(source, "\(there)/new-\(policy)"))
            let result = try blkferry("--size-policy", policy, source, url("small"))
            #expect(result.status == 2, "\(policy)")
            #expect(result.errors.contains("4096") && result.errors.contains("\(size)"))
            #expect(result.errors.contains(url("small")), "the user's name for it")
        }
        #expect(try blkferry("--size-policy", "refuse", source, url("large")).status == 2)
        #expect(try [UInt8](contentsOf: large).allSatisfy { $0 == 0 })
        #expect(try [UInt8](contentsOf: small).count == 4096)
        try overwrite(large, [7], at: size)
        #expect(try blkferry("--size-policy", "prefix", source, url("large")).status == 0)
        let bytes = try [UInt8](contentsOf: large)
        #expect(bytes.count == 8 << 20 && bytes[size] == 7)
        #expect(try bytes.prefix(size).elementsEqual([UInt8](contentsOf: source)))
        #expect(try blkferry("verify", source, url("large")).status == 1)
        #expect(try blkferry("verify", "--size-policy", "prefix", source, url("large")).status == 0)

        let local = try scratch.sparseFile("local", size: 8 << 20)
        #expect(try blkferry("--size-policy", "refuse", url("image"), local).status == 3, "missing")
        _ = try blkferry(source, url("image"))
        #expect(try blkferry("--size-policy", "refuse", url("image"), local).status == 2)
        #expect(try blkferry("--size-policy", "prefix", url("image"), local).status == 0)
        #expect(try [UInt8](contentsOf: local).count == 8 << 20)
    }

    @Test func `a terabyte with little data on it is copied both ways at once, and stays sparse`()
        throws
    {
        let huge = try scratch.sparseFile("huge", size: 1 << 40)
        for (seed, offset) in [(1, 0), (2, 77 << 20), (3, 500 << 30), (4, (1 << 40) - 4096)] {
            try fill(huge, seed: UInt64(seed), size: 4096, offset: offset)
        }
        try fill(huge, seed: 5, size: 1 << 20, offset: 300 << 30)
        let back = scratch.file("back")
        #expect(try blkferry("--verify", huge, url("huge")).status == 0)
        #expect(try blkferry("--verify", url("huge"), back).status == 0)
        func allocated(_ path: String) throws -> Int {
            try #require(Int(must("du", "-B1", path).prefix { $0 != "\t" }))
        }
        for copy in ["\(there)/huge", back] {
            #expect(try allocated(copy) <= allocated(huge))
            let size = try FileManager.default.attributesOfItem(atPath: copy)[.size] as? Int
            #expect(size == 1 << 40)
            for offset in [0, 77 << 20, 300 << 30, 500 << 30, (1 << 40) - 4096] {
                try must("cmp", "--bytes=4096", "--ignore-initial=\(offset)", huge, copy)
            }
        }
        try overwrite(huge, [UInt8](repeating: 0, count: 4096), at: 77 << 20)
        let (result, json) = try blkferryJSON(huge, url("huge"))
        #expect(result.status == 0)
        #expect(json.int("zeroed") == 4096 && json.int("written") == 0)
    }

    @Test func `a block size that no power of two divides works in both directions`() throws {
        for block in ["1536", "66048", "5K", "512"] {
            let result = try blkferry("-b", block, "--verify", source, url("image-\(block)"))
            #expect(result.status == 0, "\(result)")
            let back = scratch.file("back-\(block)")
            let pulled = try blkferry("-b", block, "--verify", url("image-\(block)"), back)
            #expect(pulled.status == 0, "\(pulled)")
            #expect(try areEqual(source, back))
        }
    }

    @Test func `a missing export, and an unreachable server, have their own statuses`() throws {
        let missing = try blkferry(url("missing"), scratch.file("back"))
        #expect(missing.status == 3)
        #expect(missing.errors.contains("the server exports no such device"))
        #expect(!FileManager.default.fileExists(atPath: scratch.file("back")))
        #expect(try blkferry(source, server.url("/etc/passwd")).status == 3)
        #expect(try blkferry(source, url("../source")).status == 3)
        for arguments in [
            [url("a"), url("b")], [source, "http://127.0.0.1:\(server.port)"],
            [source, "gopher://127.0.0.1/x"], ["--bwlimit", "1", source, url("image")],
        ] {
            #expect(try RunningProgram([program] + arguments).wait().status == 64, "\(arguments)")
        }
        #expect(try blkferry("-m", "rot13", source, url("image")).status == 64)
        try server.kill()
        let start = ContinuousClock.now
        let gone = try blkferry(source, url("image"))
        #expect(gone.status == 4)
        #expect(gone.errors.contains("connection refused"))
        #expect(ContinuousClock.now - start < .seconds(25), "what never answered is not waited for")
    }

    @Test func `list shows what a server exports, and one device of it`() throws {
        _ = try blkferry(source, url("image"))
        let root = "http://127.0.0.1:\(server.port)"
        let text = try blkferry("list", root)
        #expect(text.status == 0)
        #expect(text.output.contains("\(there)/image"))
        for location in [root, url("image")] {
            let result = try blkferry("list", "--json", location)
            let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
            let list = Record(try #require(object as? [String: Any]))
            let devices = try #require(list.records("devices"))
            #expect(devices.map { $0.string("path") } == ["\(there)/image"])
            #expect(devices.first?.int("size") == size)
            #expect(devices.first?.string("access") == "rw")
            let id = try #require(devices.first?.string("id"))
            #expect(try blkferry("verify", source, server.url(id)).status == 0, "the id selects it")
        }
        #expect(try blkferry("list", url("missing")).status == 3)
    }

    @Test func `progress as JSON ends with all bytes, and its figures are those of the result`()
        throws
    {
        let (result, json) = try blkferryJSON("--progress", "json", source, url("image"))
        #expect(result.status == 0)
        let last = try #require(result.errors.split(separator: "\n").last)
        let object = try JSONSerialization.jsonObject(with: Data(last.utf8))
        let event = Record(try #require(object as? [String: Any]))
        #expect(event.int("done") == size && event.int("total") == size)
        #expect(event.int("different") == json.int("different"))
        #expect(json.string("target") == url("image") && json.string("source") == source)
        #expect(json.int("size") == size && json.int("exitStatus") == 0)
    }

    @Test func `a source that is written to while it is read gives a warning, in both directions`()
        throws
    {
        _ = try blkferry(source, url("image"))
        let zeros = try scratch.filledFile("zeros", size: size, seed: 9)
        let image = "\(there)/image"
        for (from, to, written, target) in [
            (zeros, url("image"), zeros, image), (url("image"), source, image, source),
        ] {
            let sync = try RunningProgram(
                [program, "--json", "-c", "1", "--bwlimit", "512K", from, to])
            let wanted = try [UInt8](contentsOf: written, count: 4096)
            while try sync.isRunning && [UInt8](contentsOf: target, count: 4096) != wanted {
                usleep(2_000)
            }
            try overwrite(written, [1], at: 0)
            let result = try sync.wait()
            #expect(result.status == 0, "\(result)")
            #expect(result.errors.contains("\(from): changed while it was read"), "\(result)")
        }
    }

    @Test func `a compressed run tells how little went over the wire`() throws {
        let text = try scratch.sparseFile("text", size: size)
        try overwrite(text, (0..<size).map { UInt8($0 / 7 & 0x3F) }, at: 0)
        let back = scratch.file("back")
        for (how, isSmall) in [("none", false), ("zstd", true), ("zstd:9", true)] {
            for (from, to) in [(text, url("image")), (url("image"), back)] {
                let (result, json) = try blkferryJSON("-W", "--compress", how, from, to)
                #expect(result.status == 0, "\(result)")
                let wire = try #require(json.int("wireBytes"))
                #expect(isSmall ? wire < size / 2 : wire > size, "\(how): \(wire)")
            }
            #expect(try areEqual(text, back))
        }
        let summary = try blkferry("--compress", "zstd", "-W", text, url("image"))
        #expect(summary.output.contains("\non the wire "))
        let local = try blkferryJSON("--compress", "zstd", text, scratch.file("local"))
        #expect(local.result.status == 0 && local.json.int("wireBytes") == nil)
    }

    @Test(arguments: ["", "zstd:", "zstd:0", "zstd:20", "zstd:x", "lz4", "zstd:-1", "ZSTD"])
    func `an unknown compression is wrong usage`(how: String) throws {
        let result = try blkferry("--compress", how, source, url("image"))
        #expect(result.status == 64 && result.errors.contains("--compress"), "\(result)")
        #expect(!FileManager.default.fileExists(atPath: "\(there)/image"))
    }

    @Test func `a run keeps to its rate limit`() throws {
        let rate = 2 << 20
        let (result, json) = try blkferryJSON("--bwlimit", "2M", source, url("image"))
        #expect(result.status == 0)
        let seconds = try #require(json.record("seconds")?.double("sync"))
        #expect(seconds > 0.85 * Double(size) / Double(rate), "\(seconds) s")
    }
}
