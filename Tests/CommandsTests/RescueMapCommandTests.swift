// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Foundation
import Glibc
import SyncEngine
import TestSupport
import Testing

/// `sync --map`, also together with GNU ddrescue.
@Suite(.blocking, .timeLimit(.minutes(60))) struct RescueMapCommandTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let target: String
    private let map: String
    private let size = 16 << 20

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.filledFile("source", size: size, seed: 1)
        target = scratch.file("target")
        map = scratch.file("map")
    }

    private func readMap() throws -> RescueMap {
        try RescueMap(Data(contentsOf: URL(fileURLWithPath: map)))
    }

    /// Checks that the target has what the map claims.
    private func expectTrue(_ map: RescueMap) throws {
        let (old, new) = (
            try Data(contentsOf: URL(fileURLWithPath: source)),
            try Data(contentsOf: URL(fileURLWithPath: target))
        )
        for range in map.ranges(.finished) {
            #expect(
                new.count >= range.end
                    && old[range.offset..<range.end] == new[range.offset..<range.end], "\(range)")
        }
    }

    @Test func `a healthy source is copied, and ddrescuelog takes the map as finished`() throws {
        let (run, json) = try blkferryJSON("--map", map, source, target)
        #expect(run.status == 0, "\(run)")
        #expect(try areEqual(source, target))
        let record = try #require(json.record("map"))
        #expect(record.string("file") == map && record.int("finished") == size)
        #expect(record.int("bad") == 0 && record.int("missing") == 0)
        let text = try String(contentsOfFile: map, encoding: .utf8)
        #expect(text.contains("# blkferry: source \(try canonical(source)), \(size) bytes\n"))
        #expect(text.contains("# blkferry: target \(try canonical(target))\n"))
        #expect(try runs("ddrescuelog", "-t", map).output.contains("(100%)"))
        #expect(try runs("ddrescuelog", "-D", map).status == 0)
        // Nothing is left to do, and only samples are read.
        let (again, second) = try blkferryJSON("--map", map, source, target)
        #expect(again.status == 0 && second.int("compared") == 0, "\(again)")
        #expect(second.int("unchanged") == size)
        #expect(try runs("ddrescuelog", "-d", map).status == 0)
        #expect(!FileManager.default.fileExists(atPath: map))
    }

    private func canonical(_ path: String) throws -> String {
        URL(fileURLWithPath: path).resolvingSymlinksInPath().path
    }

    private func runs(_ words: String...) throws -> ProgramResult {
        try RunningProgram(words).wait()
    }

    @Test(.enabled(if: SilentDisk.isPossible, "needs root, FUSE and qemu-storage-daemon"))
    func `bad sectors are left out, ddrescue goes on with the map, and blkferry with its`() throws {
        let disk = try BadDisk(on: source, badSector: 5000)
        let (run, json) = try blkferryJSON("--map", map, disk.path, target)
        #expect(run.status == 6, "\(run)")
        let bad = try #require(json.record("map")?.int("bad"))
        #expect(bad > 0 && bad <= 4096 && json.record("map")?.int("missing") == 0)
        #expect(json.record("readErrors")?.int("unreadable") == bad)
        var own = try readMap()
        #expect(own.bytes(.bad) == bad && own.phase == .finished)
        try expectTrue(own)
        #expect(try runs("ddrescuelog", "-t", map).status == 0)
        // Another run tries only the bad sectors.
        let again = try blkferry("--map", map, disk.path, target)
        #expect(again.status == 6 && again.output.contains("as the map says"), "\(again)")
        // ddrescue goes on; it reads the file itself, in which no sector is bad.
        #expect(try runs("ddrescue", "-r1", source, target, map).status == 0)
        #expect(try areEqual(source, target))
        #expect(try readMap().bytes(.finished) == size)

        try FileManager.default.removeItem(atPath: map)
        try FileManager.default.removeItem(atPath: target)
        _ = try runs("ddrescue", "-d", disk.path, target, map)
        let theirs = try readMap()
        #expect(theirs.bytes(.finished) < size && theirs.bytes(.finished) >= size - 4096)
        #expect(try blkferry("--map", map, disk.path, target).status == 6)
        own = try readMap()
        #expect(own.bytes(.finished) >= theirs.bytes(.finished))
        try expectTrue(own)
        // The map of the disk is not that of the file, which has another name.
        let other = try blkferry("--map", map, source, target)
        #expect(other.status == 2 && other.errors.contains("it is the map of the source"))
        try must("sed", "-i", "/^# blkferry: source/d", map)
        #expect(try blkferry("--map", map, source, target).status == 0)
        #expect(try areEqual(source, target))
    }

    /// A run each of whose writes takes longer, to the target and to the map.
    private func slowRun() throws -> RunningProgram {
        try RunningProgram([
            "strace", "-D", "-f", "-o", "/dev/null", "-e", "trace=pwrite64", "-e",
            "inject=pwrite64:delay_enter=60000", program, "--map", map, source, target,
        ])
    }

    @Test(arguments: seeds(6))
    func `after every kill, the target has what the map claims`(_ seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        var claimed = 0
        for _ in 0..<4 {
            let run = try slowRun()
            let before = try? Data(contentsOf: URL(fileURLWithPath: map))
            // The map is saved before the first write.
            #expect(
                becomesTrue { (try? Data(contentsOf: URL(fileURLWithPath: map))) != before })
            usleep(UInt32.random(in: 0...600_000, using: &random))
            run.signal(SIGKILL)
            _ = try run.wait()
            let killed = try readMap()
            #expect(killed.bytes(.finished) >= claimed)
            claimed = killed.bytes(.finished)
            try expectTrue(killed)
        }
        #expect(claimed > 0)
        let last = try blkferry("--map", map, source, target)
        #expect(last.status == 0, "\(last)")
        #expect(try areEqual(source, target))
        try expectTrue(try readMap())
    }

    @Test func `a signal ends the run with 130, and the next one goes on`() throws {
        let run = try slowRun()
        #expect(becomesTrue { (try? readMap().bytes(.finished)) ?? 0 > 0 })
        run.signal(SIGINT)
        let result = try run.wait()
        #expect(result.status == 130, "\(result)")
        let first = try readMap()
        #expect(first.bytes(.finished) > 0 && first.bytes(.finished) < size)
        try expectTrue(first)
        let (last, json) = try blkferryJSON("--map", map, source, target)
        #expect(last.status == 0 && json.int("unchanged") == first.bytes(.finished), "\(last)")
        #expect(try areEqual(source, target))
    }

    @Test(arguments: [
        ["--whole-file"], ["--verify"], ["--undo", "/dev/shm/x"], ["--max-change", "5"],
        ["--move-backup-gpt"], ["--snapshot"], ["--since", "g/s"], ["-B", "2"],
    ])
    func `a map does not go with everything`(_ options: [String]) throws {
        let result = try RunningProgram(
            [program, "--map", map] + options + [source, target]
        ).wait()
        #expect(result.status == 64 && result.errors.contains("does not go with"), "\(result)")
        #expect(!FileManager.default.fileExists(atPath: map))
    }

    @Test func `a server, a missing map and a wrong timeout are wrong usage`() throws {
        for (words, text) in [
            (["--map", map, "http://localhost:1/dev/x", target], "must be on this machine"),
            (["--map", map, source, "http://localhost:1/dev/x"], "must be on this machine"),
            (["--read-timeout", "5s", source, target], "goes with --map"),
            (["--map", map, "--read-timeout", "0", source, target], "more than 0"),
            (["--map", "", source, target], "a file is missing"),
        ] {
            let result = try RunningProgram([program] + words).wait()
            #expect(result.status == 64 && result.errors.contains(text), "\(result)")
        }
    }

    @Test func `a map that cannot be true is refused, and nothing is written`() throws {
        func refused(
            _ text: String, _ reason: String, file: String? = nil,
            sourceLocation: SourceLocation = #_sourceLocation
        ) throws {
            try text.write(toFile: map, atomically: false, encoding: .utf8)
            let before = try? Data(contentsOf: URL(fileURLWithPath: target))
            let result = try blkferry("--overwrite", "--map", file ?? map, source, target)
            #expect(
                result.status == 2 && result.errors.contains(reason), "\(result)",
                sourceLocation: sourceLocation)
            #expect(try String(contentsOfFile: map, encoding: .utf8) == text)
            #expect((try? Data(contentsOf: URL(fileURLWithPath: target))) == before)
        }
        let claim = "0 ? 1\n0 0x100000 +\n"
        try refused(claim, "it does not exist")
        _ = try scratch.filledFile("target", size: size, seed: 2)
        try refused(claim, "which the map says is copied")
        let dry = try blkferry("-n", "--exit-code", "--overwrite", "--map", map, source, target)
        #expect(dry.status == 2 && dry.errors.contains("which the map says is copied"), "\(dry)")
        try refused("0 ? 1\n0 512 +\n600 512 +\n", "line 3: there is a gap")
        try refused("0 ? 1\n0 0x1100000 ?\n", "17825792 bytes or more")
        try refused(
            "# blkferry: source /dev/other, 1 bytes\n\(claim)", "it is the map of the source")
        try refused("# blkferry: target /dev/other\n\(claim)", "it is the map of the target")
        try must("truncate", "-s", "512K", target)
        try refused(claim, "had only 524288 bytes")
        try refused(claim, "no regular file", file: "/dev/null")
        let own = try blkferry("--overwrite", "--map", target, source, target)
        #expect(own.status == 2 && own.errors.contains("it would be on the target"), "\(own)")
        let theirs = try blkferry("--overwrite", "--map", source, source, target)
        #expect(theirs.status == 2 && theirs.errors.contains("it would be on the source"))
    }

    @Test func `an image that was created anew is refused`() throws {
        // Nothing but zeros.
        try must("truncate", "-s", "0", source)
        try must("truncate", "-s", "\(size)", source)
        #expect(try blkferry("--map", map, source, target).status == 0)
        let text = try String(contentsOfFile: map, encoding: .utf8)
        // Some file systems know no birth time.
        guard text.contains("# blkferry: created ") else { return }
        try FileManager.default.removeItem(atPath: target)
        try must("truncate", "-s", "\(size)", target)
        for options in [["-n"], []] {
            let result = try RunningProgram(
                [program, "--overwrite", "--map", map] + options + [source, target]
            ).wait()
            #expect(result.status == 2 && result.errors.contains("created anew"), "\(result)")
        }
        #expect(try String(contentsOfFile: map, encoding: .utf8) == text)
        try must("sed", "-i", "/^# blkferry: created/d", map)
        #expect(try blkferry("--overwrite", "--map", map, source, target).status == 0)
    }

    @Test func `a refusal of the map creates no image`() throws {
        for text in ["0 ? 1\n0 0x1100000 ?\n", "# blkferry: source /dev/other, 1 bytes\n0 ? 1\n"] {
            try text.write(toFile: map, atomically: false, encoding: .utf8)
            let result = try blkferry("--map", map, source, target)
            #expect(result.status == 2, "\(result)")
            #expect(!FileManager.default.fileExists(atPath: target))
        }
    }

    @Test func `a dry run leaves the map alone`() throws {
        try must("cp", source, target)
        try fill(target, seed: 3, size: 4096, offset: 6 << 20)
        let text = "0 ? 1\n0 0x400000 +\n"
        try text.write(toFile: map, atomically: false, encoding: .utf8)
        let (run, json) = try blkferryJSON("-n", "--overwrite", "--map", map, source, target)
        #expect(run.status == 0, "\(run)")
        #expect(json.int("different") == 4096 && json.int("compared") == 12 << 20)
        #expect(try String(contentsOfFile: map, encoding: .utf8) == text)
        #expect(try blkferry("-n", "--map", scratch.file("new"), source, target).status == 0)
        #expect(!FileManager.default.fileExists(atPath: scratch.file("new")))
    }

    @Test func `no process keeps the source open after a run`() throws {
        _ = try blkferry("--map", map, source, target)
        let script = "for f in /proc/[0-9]*/fd/*; do readlink $f; done"
        #expect(
            becomesTrue { (try? runs("sh", "-c", script).output.contains(source)) == false })
    }
}
