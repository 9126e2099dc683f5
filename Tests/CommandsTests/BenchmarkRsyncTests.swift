// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// A benchmark beside an rsync: the real one, or one that fails.
@Suite(.blocking, .timeLimit(.minutes(60))) struct BenchmarkRsyncTests {
    /// rsync's daemon on a loopback port, killed when the test forgets it; it serves a directory.
    private final class Daemon {
        let port: Int
        private let process: RunningProgram

        init(serving directory: String, scratch: ScratchDirectory) throws {
            // Below those that the kernel gives to other sockets meanwhile, ip(7).
            port = Int.random(in: 20_000..<32_000)
            let file = scratch.file("rsyncd.conf")
            let text = """
                use chroot = false
                uid = \(geteuid())
                gid = \(getegid())
                [images]
                path = \(directory)
                """
            try Data(text.utf8).write(to: URL(fileURLWithPath: file))
            process = try RunningProgram([
                "rsync", "--daemon", "--no-detach", "--address=127.0.0.1", "--port=\(port)",
                "--config=\(file)", "--log-file=\(scratch.file("rsyncd.log"))",
            ])
            for _ in 0..<6000 where process.isRunning {
                if (try? Loopback.connect(port: port)) != nil { return }
                usleep(10_000)
            }
            throw NotListening(errors: try process.errorsSoFar())
        }
    }

    private func rows(_ json: Record) throws -> [Record] { try #require(json.records("rows")) }

    @Test(arguments: ["sequential", "random"])
    func `rsync copies images beside blkferry`(pattern: String) throws {
        let rig = try BenchmarkRig()
        let (result, json) = try rig.json(
            "benchmark", "-B", "2", "--pattern", pattern, rig.source, rig.target)
        #expect(result.status == 0, "\(result)")
        #expect(json.strings("warnings") == [] && json.string("rsync") != nil)
        for row in try rows(json) {
            let own = try #require(row.double("seconds"))
            let other = try #require(row.double("rsyncSeconds"))
            #expect(own > 0 && other > 0)
            #expect(try abs(#require(row.double("ratio")) - other / own) < 1e-6)
            #expect(row.int("wireBytes") == nil)
        }
        #expect(try areEqual(rig.source, rig.target))
    }

    @Test(.enabled(if: isRoot, "loop devices need root"), arguments: [[], ["prefix"]])
    func `rsync copies devices as devices`(policy: [String]) throws {
        let size = 2 << 20
        let rig = try BenchmarkRig(size: size)
        let source = try LoopDevice(size: size)
        let target = try LoopDevice(size: policy.isEmpty ? size : 2 * size)
        try fill(source.path, seed: 1, size: size)
        try fill(target.path, seed: 2, size: policy.isEmpty ? size : 2 * size)
        let before = try [UInt8](contentsOf: target.path)
        let (result, json) = try rig.json(
            "benchmark", "-B", "2", "--size-policy", policy.first ?? "refuse", source.path,
            target.path)
        #expect(result.status == 0, "\(result)")
        #expect(json.strings("warnings") == [])
        #expect(try rows(json).allSatisfy { $0.double("ratio") != nil })
        let after = try [UInt8](contentsOf: target.path)
        #expect(try after.prefix(size).elementsEqual([UInt8](contentsOf: source.path)))
        #expect(after.dropFirst(size) == before.dropFirst(size))
    }

    @Test(.enabled(if: isRoot, "loop devices need root"))
    func `changed names and signatures of the source cause no refusal`() throws {
        let size = 16 << 20
        let rig = try BenchmarkRig(size: 1 << 20)
        let source = try LoopDevice(size: size)
        // A replica makes the UUID ambiguous, and the first half of the target loses it.
        try must("mkfs.ext4", "-q", source.path)
        let uuid = try must("blkid", "-p", "-s", "UUID", "-o", "value", source.path).dropLast()
        let replica = try LoopDevice(size: size)
        let first = try rig.run("benchmark", "-B", "2", "UUID=\(uuid)", replica.path)
        #expect(first.status == 0, "\(first)")
        #expect(try areEqual(source.path, replica.path))
        // The backup of a partition table stays where its head is gone.
        try must("sfdisk", "-q", "--wipe", "always", source.path, input: "label: gpt\n,4M\n")
        let target = try LoopDevice(size: size)
        let link = rig.scratch.file("link")
        try must("ln", "-s", target.path, link)
        let second = try rig.run("benchmark", "-B", "2", source.path, link)
        #expect(second.status == 0, "\(second)")
        #expect(try areEqual(source.path, target.path))
    }

    @Test func `with a URL as source there are wire bytes, and rsync if its daemon is named`()
        throws
    {
        let rig = try BenchmarkRig()
        let there = rig.scratch.file("there")
        try must("mkdir", "-p", "\(there)/a b")
        try must("cp", rig.source, "\(there)/a b/image")
        let server = try ServeProcess("\(there)/a b/image")
        let daemon = try Daemon(serving: there, scratch: rig.scratch)
        let arguments = [
            program, "benchmark", "-B", "2", "--json", server.url("\(there)/a%20b/image"),
            rig.target,
        ]
        for family in ["BLKFERRY", "PDIFFCOPY", nil] {
            var variables = rig.environment()
            if let family {
                variables["\(family)_BENCHMARK_RSYNC_SERVER"] = "127.0.0.1:\(daemon.port)"
                variables["\(family)_BENCHMARK_RSYNC_MODULE"] = "images"
                variables["\(family)_BENCHMARK_RSYNC_ROOT"] = there
            }
            let result = try RunningProgram(arguments, environment: variables).wait()
            #expect(result.status == 0, "\(result)")
            let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
            let json = Record(try #require(object as? [String: Any]))
            #expect(json.strings("warnings") == [])
            for row in try rows(json) {
                let wire = try #require(row.int("wireBytes"))
                let written = try #require(row.int("written"))
                #expect(wire > written && wire < 2 * written)
                #expect((row.double("rsyncSeconds") != nil) == (family != nil))
            }
            #expect(try areEqual(rig.source, rig.target))
        }
        let outside = rig.environment().merging([
            "BLKFERRY_BENCHMARK_RSYNC_SERVER": "127.0.0.1:1",
            "BLKFERRY_BENCHMARK_RSYNC_MODULE": "images",
            "BLKFERRY_BENCHMARK_RSYNC_ROOT": "/elsewhere",
        ]) { $1 }
        let result = try RunningProgram(arguments, environment: outside).wait()
        #expect(result.status == 0)
        #expect(result.errors.contains("is not below /elsewhere"))
    }

    @Test func `a failing rsync is a warning, and its column stays empty`() throws {
        let rig = try BenchmarkRig()
        try rig.fakeRsync("echo 'no room in the ferry' >&2; exit 7")
        let (result, json) = try rig.json(
            "benchmark", "-B", "2", rig.source, rig.target, onlyOurs: true)
        #expect(result.status == 0, "\(result)")
        #expect(result.errors.contains("blkferry: warning: rsync: no room in the ferry\n"))
        #expect(result.errors.contains("it ended with status 7"))
        #expect(json.string("rsync") == "9.9.9")
        #expect(try rows(json).count == 2)
        #expect(try rows(json).allSatisfy { $0.double("rsyncSeconds") == nil })
        #expect(try areEqual(rig.source, rig.target))
    }

    @Test func `an rsync that copies nothing and claims success is found out`() throws {
        let rig = try BenchmarkRig()
        try rig.fakeRsync("exit 0")
        let (result, json) = try rig.json(
            "benchmark", "-B", "1", rig.source, rig.target, onlyOurs: true)
        #expect(result.status == 0, "\(result)")
        #expect(result.errors.contains("rsync: it has left \(rig.size) bytes"))
        #expect(try rows(json).first?.double("rsyncSeconds") == nil)
        #expect(try areEqual(rig.source, rig.target))
    }

    @Test(.enabled(if: isRoot, "loop devices need root"))
    func `an rsync that cannot write devices is left out`() throws {
        let rig = try BenchmarkRig(size: 1 << 20)
        try rig.fakeRsync("exit 0")
        let target = try LoopDevice(size: 1 << 20)
        let (result, json) = try rig.json(
            "benchmark", "-B", "1", rig.source, target.path, onlyOurs: true)
        #expect(result.status == 0, "\(result)")
        #expect(result.errors.contains("version 9.9.9 has no --write-devices"))
        #expect(json.string("rsync") == nil)
    }

    @Test func `rsync has the target for itself, and gets neither terminal nor shell`() throws {
        let rig = try BenchmarkRig()
        let name = "so$(touch nothing) 'it is"
        let target = rig.scratch.file(name)
        // It locks the target as blkferry does, and copies to it.
        try rig.fakeRsync(
            """
            for last; do from=$to; to=$last; done
            flock -n -x "$to" cp "$from" "$to" && [ "$(cut -d' ' -f6 /proc/$$/stat)" = $$ ]
            """)
        let (result, json) = try rig.json(
            "benchmark", "-B", "1", rig.source, target, onlyOurs: true)
        #expect(result.status == 0, "\(result)")
        #expect(try rows(json).first?.double("rsyncSeconds") != nil, "\(result)")
        #expect(try areEqual(rig.source, target))
    }
}
