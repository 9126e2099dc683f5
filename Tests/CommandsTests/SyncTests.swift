// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// `blkferry sync` and `verify` between images: what needs no root.
@Suite(.blocking) struct ImageSyncTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let size = (5 << 20) + 1

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.filledFile("source", size: size, seed: 1)
    }

    @Test func `a missing image is created, private, and a second sync has nothing to do`() throws {
        let target = scratch.file("target")
        let first = try blkferryJSON(source, target)
        #expect(first.result.status == 0)
        #expect(first.json.bool("created") == true)
        #expect(first.json.bool("flushed") == true)
        #expect(first.json.int("written") == size)
        #expect(try areEqual(source, target))
        let mode = try FileManager.default.attributesOfItem(atPath: target)[.posixPermissions]
        #expect(mode as? Int == 0o600)

        let second = try blkferryJSON(source, target)
        #expect(second.result.status == 0)
        #expect(second.json.bool("created") == false)
        #expect(second.json.int("written") == 0 && second.json.int("zeroed") == 0)
        #expect(second.json.double("similarity") == 100)
    }

    @Test(arguments: [1, 3, 5, 6, 7])
    func `a window that is no multiple of a page works with any number of threads`(threads: Int)
        throws
    {
        let target = scratch.file("target")
        let result = try blkferry("-b", "66048", "-c", "\(threads)", source, target)
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, target))
    }

    @Test func `a time stamp of another century is no trap`() throws {
        try must("touch", "-d", "2400-01-01", source)
        #expect(try blkferry(source, scratch.file("target")).status == 0)
    }

    @Test(arguments: ["512", "4K", "5K", "64KiB", "1M", "1.5 MiB"])
    func `only blocks that differ are written, whatever the block size`(block: String) throws {
        let target = scratch.file("target")
        _ = try blkferry(source, target)
        try overwrite(target, [1, 2, 3], at: 1_000_000)
        try overwrite(target, [4], at: size - 1)
        let (result, json) = try blkferryJSON("-b", block, source, target)
        #expect(result.status == 0)
        #expect(try areEqual(source, target))
        #expect(json.int("differentBlocks") == 2)
        #expect(json.int("extents") == 2)
        #expect(json.string("digest") == nil)
        #expect(try #require(json.int("written")) < 2 * (3 << 19) + 1)
    }

    @Test func `a dry run writes nothing and reports the similarity`() throws {
        let target = scratch.file("target")
        _ = try blkferry(source, target)
        try overwrite(target, [1, 2, 3], at: 1_000_000)
        let before = try [UInt8](contentsOf: target)
        let (result, json) = try blkferryJSON("--dry-run", source, target)
        #expect(result.status == 0)
        #expect(json.int("different") == 4096)
        #expect(json.int("written") == 0)
        let similarity = try #require(json.double("similarity"))
        #expect(abs(similarity - (100 - 409600 / Double(size))) < 1e-9)
        #expect(try blkferry("-n", "--exit-code", source, target).status == 1)
        #expect(try [UInt8](contentsOf: target) == before)
        #expect(try blkferry("-n", "--exit-code", source, source + "-none").status == 1)
        #expect(!FileManager.default.fileExists(atPath: source + "-none"))
        _ = try blkferry(source, target)
        #expect(try blkferry("-n", "--exit-code", source, target).status == 0)
    }

    @Test func `a dry run reports what resizing would do, and does not resize`() throws {
        for old in [1_000_000, 8 << 20] {
            let target = try scratch.sparseFile("target-\(old)", size: old)
            let (result, json) = try blkferryJSON("-n", source, target)
            #expect(result.status == 0)
            #expect(json.int("resizedTo") == size)
            #expect(json.int("different") == size)
            #expect(try [UInt8](contentsOf: target).count == old)
            #expect(json.int("targetSize") == old)
        }
    }

    @Test func `a size alone is a difference to a dry run`() throws {
        let zeros = try scratch.sparseFile("zeros", size: 1 << 20)
        for (target, old) in [("larger", 2 << 20), ("smaller", 1 << 19)] {
            let target = try scratch.sparseFile(target, size: old)
            let result = try blkferry("-n", "--exit-code", zeros, target)
            #expect(result.status == 1)
            #expect(result.output.contains("would be resized from \(old) bytes"))
        }
    }

    @Test(arguments: [0, 1, 1_000_000, 8 << 20])
    func `an image is resized to the source`(old: Int) throws {
        let target = try scratch.sparseFile("target", size: old)
        #expect(try blkferry(source, target).status == 0)
        #expect(try areEqual(source, target))
    }

    @Test func `size policies refuse and prefix work for images`() throws {
        let small = try scratch.sparseFile("small", size: 4096)
        let large = try scratch.sparseFile("large", size: 8 << 20)
        for policy in ["refuse", "prefix"] {
            let result = try blkferry("--size-policy", policy, source, small)
            #expect(result.status == 2, "\(policy)")
            #expect(result.errors.contains("4096") && result.errors.contains("\(size)"))
        }
        #expect(try blkferry("--size-policy", "refuse", source, large).status == 2)
        #expect(try [UInt8](contentsOf: large).allSatisfy { $0 == 0 })
        try overwrite(large, [7], at: size)
        #expect(try blkferry("--size-policy", "prefix", source, large).status == 0)
        let bytes = try [UInt8](contentsOf: large)
        #expect(bytes.count == 8 << 20)
        #expect(bytes[size] == 7)
        #expect(try bytes.prefix(size).elementsEqual([UInt8](contentsOf: source)))
        #expect(try blkferry("verify", source, large).status == 1)
        #expect(try blkferry("verify", "--size-policy", "prefix", source, large).status == 0)
    }

    @Test func `a target without room for the backup GPT is refused, also on a server`() throws {
        let disk = try scratch.sparseFile("disk", size: 8 << 20)
        let large = try scratch.sparseFile("large", size: (8 << 20) + 4096)
        try must("sgdisk", "-n", "1:0:+4M", disk)
        let server = try ServeProcess("\(large):rw")
        for target in [large, server.url(large)] {
            let result = try blkferry("--move-backup-gpt", "--json", disk, target)
            #expect(result.status == 2, "\(result)")
            #expect(result.errors.contains("no room for the backup GPT"), "\(result)")
            #expect(result.output.contains("\"cause\":\"size\""), "\(result)")
        }
        #expect(try [UInt8](contentsOf: large).allSatisfy { $0 == 0 })
    }

    @Test func `verify reports how many blocks differ and where, and writes nothing`() throws {
        let target = scratch.file("target")
        _ = try blkferry(source, target)
        let same = try blkferry("verify", source, target)
        #expect(same.status == 0)
        #expect(same.output.contains("identical"))
        try overwrite(target, [1], at: 8192)
        try overwrite(target, [1], at: 12288)
        try overwrite(target, [1], at: 1 << 20)
        let (result, json) = try blkferryJSON("verify", source, target)
        #expect(result.status == 1)
        #expect(json.int("differentBlocks") == 3)
        let first = try #require(json.records("firstDifferences"))
        #expect(first.map { $0.int("offset") } == [8192, 1 << 20])
        #expect(first.map { $0.int("length") } == [8192, 4096])
        let text = try blkferry("verify", source, target)
        #expect(text.output.contains("  offset 8192, length 8192\n"))
        #expect(try !areEqual(source, target))
    }

    @Test func `sync --verify reads both sides again and says so`() throws {
        let target = scratch.file("target")
        let (result, json) = try blkferryJSON("--verify", source, target)
        #expect(result.status == 0)
        #expect(json.bool("verified") == true)
        #expect(try blkferry("--verify", source, target).output.contains("flushed, verified"))
    }

    @Test func `a parent directory that is missing is an error and is not created`() throws {
        let result = try blkferry(source, scratch.file("none/target"))
        #expect(result.status == 3)
        #expect(result.errors.contains("parent directory"))
        #expect(!FileManager.default.fileExists(atPath: scratch.file("none")))
    }

    @Test func `a regular file is never created under /dev`() throws {
        let name = "/dev/blkferry-test-\(ProcessInfo.processInfo.processIdentifier)"
        #expect(try blkferry(source, name).status == 2)
        #expect(!FileManager.default.fileExists(atPath: name))
    }

    @Test func `progress as JSON is one object a line, on standard error`() throws {
        let target = scratch.file("target")
        let result = try blkferry("--progress", "json", source, target)
        let lines = result.errors.split(separator: "\n")
        #expect(!lines.isEmpty)
        for line in lines {
            let object = try JSONSerialization.jsonObject(with: Data(line.utf8))
            #expect((object as? [String: Any])?["phase"] != nil)
        }
        #expect(lines.last?.contains("\"done\":\(size)") == true)
        #expect(lines.last?.contains("\"total\":\(size)") == true)
        #expect(try blkferry(source, target).errors.isEmpty, "nothing on a pipe by default")
    }

    @Test func `--quiet prints nothing when all is well`() throws {
        let result = try blkferry("-q", source, scratch.file("target"))
        #expect(result.status == 0 && result.output.isEmpty && result.errors.isEmpty)
    }

    @Test func `the summary has the figures of the run`() throws {
        let target = scratch.file("target")
        let text = try blkferry(source, target).output
        for word in ["compared", "different", "written", "zeroed", "similarity", "time", "/s"] {
            #expect(text.contains(word), "\(word)")
        }
    }

    @Test func `an image that another program has locked is refused`() throws {
        let target = try scratch.sparseFile("target", size: size)
        let script = """
            import fcntl, sys, time
            file = open(sys.argv[1], "r+")
            fcntl.lockf(file, fcntl.LOCK_EX)
            open(sys.argv[1] + ".locked", "w").close()
            time.sleep(60)
            """
        let holder = try RunningProgram(["python3", "-c", script, target])
        while !FileManager.default.fileExists(atPath: target + ".locked") {
            #expect(holder.isRunning)
            usleep(10_000)
        }
        let result = try blkferry(source, target)
        #expect(result.status == 2)
        #expect(result.errors.contains("locked"))
        #expect(try [UInt8](contentsOf: target).allSatisfy { $0 == 0 })
    }

    @Test func `a source that changes while it is read gives a warning`() throws {
        let large = try scratch.sparseFile("large", size: 64 << 20)
        try must("dd", "if=/dev/urandom", "of=\(large)", "bs=1M", "count=64", "conv=notrunc")
        let target = scratch.file("target")
        let result = try blkferry(
            slowly: ["--json", large, target], once: { holdsData(target) }
        ) { try overwrite(large, [1], at: 0) }
        #expect(result.output.contains("\"sourceChanged\":true"))
        #expect(result.errors.contains("changed while it was read"))
    }
}

/// Sparse images.
@Suite(.blocking) struct SparseSyncTests {
    private let scratch: ScratchDirectory

    init() throws { scratch = try ScratchDirectory() }

    private func allocated(_ path: String) throws -> Int {
        try #require(Int(try must("stat", "-c", "%b", path).dropLast())) * 512
    }

    @Test(.timeLimit(.minutes(60)))
    func `a terabyte of holes takes no time, no space and no memory`() throws {
        let source = try scratch.sparseFile("source", size: 1 << 40)
        for index in 0..<100 {
            try fill(source, seed: UInt64(index), size: 1 << 20, offset: index * (10 << 30) + 512)
        }
        let target = scratch.file("target")
        let (result, json) = try blkferryJSON("--verify", source, target)
        #expect(result.status == 0)
        #expect(json.int("compared") == 1 << 40)
        #expect(json.int("written").map { (100 << 20)...(101 << 20) ~= $0 } == true)
        #expect(try allocated(target) <= allocated(source) + (1 << 20))
        #expect(try blkferry("verify", source, target).status == 0)
    }

    @Test func `a source that is cut while it is read fails the run, holes or not`() throws {
        let source = try scratch.sparseFile("source", size: 400 << 20)
        for index in 0..<200 {
            try overwrite(source, [UInt8](repeating: 7, count: 1 << 20), at: index << 21)
        }
        let target = scratch.file("target")
        let result = try blkferry(slowly: [source, target], once: { holdsData(target) }) {
            try must("truncate", "-s", "20M", source)
        }
        #expect(result.status == 3, "\(result)")
    }

    @Test func `a run takes little memory whatever the size`() throws {
        let sparse = try scratch.sparseFile("sparse", size: 1 << 40)
        try fill(sparse, seed: 3, size: 1 << 20, offset: 1 << 39)
        let dense = try scratch.filledFile("dense", size: 64 << 20, seed: 4)
        let script = """
            import resource, subprocess, sys
            subprocess.run(sys.argv[1:], check=True)
            print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
            """
        for source in [sparse, dense] {
            let kibibytes = try must("python3", "-c", script, program, "-q", source, source + ".2")
            #expect(try #require(Int(kibibytes.dropLast())) <= 64 << 10)
        }
    }

    @Test func `zeros in the source free the target's blocks`() throws {
        let source = try scratch.sparseFile("source", size: 16 << 20)
        let target = try scratch.filledFile("target", size: 16 << 20, seed: 1)
        try overwrite(source, [UInt8](repeating: 0, count: 1 << 20), at: 0)
        try fill(source, seed: 2, size: 4096, offset: 8 << 20)
        let (result, json) = try blkferryJSON(source, target)
        #expect(result.status == 0)
        #expect(json.int("zeroed") == (16 << 20) - 4096)
        #expect(try areEqual(source, target))
        #expect(try allocated(target) <= 65536)
    }

    @Test func `a whole copy onto old data leaves no stale block`() throws {
        let source = try scratch.sparseFile("source", size: (16 << 20) + 777)
        try fill(source, seed: 2, size: 100_000, offset: 8 << 20)
        let target = try scratch.filledFile("target", size: (16 << 20) + 777, seed: 1)
        #expect(try blkferry("-W", source, target).status == 0)
        #expect(try areEqual(source, target))
    }
}
