// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// What a server that root has started keeps of root's capabilities.
@Suite(.enabled(if: isRoot, "only root has capabilities"), .blocking, .timeLimit(.minutes(30)))
struct PrivilegeTests {
    private let scratch: ScratchDirectory
    private let image: String
    private let size = 8 << 20

    private static let overrideAccess: UInt64 = 1 << 1
    private static let readSearch: UInt64 = 1 << 2
    private static let lease: UInt64 = 1 << 28

    init() throws {
        scratch = try ScratchDirectory()
        image = try scratch.sparseFile("image", size: size)
        try must("mkfs.ext4", "-q", "-F", image)
        try fill(image, seed: 5, size: 1 << 20, offset: 6 << 20)
    }

    /// A set of capabilities of a server, which all of its threads have.
    private func capabilities(_ server: ServeProcess, _ name: String = "CapPrm") throws -> UInt64 {
        let tasks = "/proc/\(server.process.processID)/task"
        let sets = try FileManager.default.contentsOfDirectory(atPath: tasks).compactMap {
            try? String(contentsOfFile: "\(tasks)/\($0)/status", encoding: .utf8)
        }.map { status in
            let line = status.split(separator: "\n").first { $0.hasPrefix("\(name):") } ?? ""
            return line.split(separator: "\t").last.flatMap { UInt64($0, radix: 16) }
        }
        #expect(sets.count > 4 && Set(sets).count == 1, "\(sets)")
        return try #require(sets.first ?? nil)
    }

    private func expectNothing(of server: ServeProcess) throws {
        for name in ["CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd"] {
            #expect(try capabilities(server, name) == 0, "\(name)")
        }
    }

    private func reload(_ server: ServeProcess, until word: String) throws {
        server.process.signal(SIGHUP)
        while server.process.isRunning, try !server.log().contains(word) { usleep(5_000) }
    }

    @Test func `images and directories are served without any capability`() throws {
        let directory = scratch.file("images")
        let target = try scratch.sparseFile("target", size: size)
        try must("mkdir", directory)
        try must("sh", "-c", "echo '\(target):rw' > \(scratch.file("exports"))")
        let server = try ServeProcess(
            image, "\(directory)/:rw",
            options: ["-v", "--exports-file", scratch.file("exports")])
        try expectNothing(of: server)
        #expect(try server.log().contains("capabilities=none"))
        #expect(try blkferry("list", server.url("/")).output.contains(image))
        for path in [target, "\(directory)/new"] {
            let push = try blkferry("--verify", "--overwrite", image, server.url(path))
            #expect(push.status == 0, "\(push)")
            #expect(try areEqual(image, path))
        }
        let copy = scratch.file("copy")
        #expect(try blkferry(server.url("\(directory)/new"), copy).status == 0)
        #expect(try areEqual(image, copy))

        let other = try scratch.sparseFile("other", size: size)
        try must("sh", "-c", "echo '\(other):rw' > \(scratch.file("exports"))")
        try reload(server, until: " reloaded")
        #expect(try blkferry("--verify", image, server.url(other)).status == 0)
        #expect(try blkferry(image, server.url(target)).status != 0)
        try expectNothing(of: server)
        // The program that stands by with a few ends with the server.
        try server.kill()
        #expect(becomesTrue { (try? run("pgrep", "-f", scratch.path).status) == 1 })
    }

    @Test func `devices are zeroed, discarded and repartitioned without any capability`() throws {
        let disk = try LoopDevice(size: size, partitions: true)
        let back = try LoopDevice(size: size)
        let source = try LoopDevice(size: size)
        try must("sh", "-c", "printf 'start=2048,size=8192\\n' | sfdisk -q \(source.path)")
        try fill(disk.path, seed: 6, size: size)
        let trace = scratch.file("trace")
        let server = try ServeProcess(
            "\(disk.path):rw", prefix: ["strace", "-D", "-f", "-o", trace, "-e", "trace=ioctl"])
        try expectNothing(of: server)
        let push = try blkferryJSON("--verify", "--overwrite", source.path, server.url(disk.path))
        #expect(push.result.status == 0, "\(push)")
        #expect(push.json.int("zeroed") ?? 0 > size / 2)
        #expect(try areEqual(source.path, disk.path))
        // The kernel says that it has done what takes a capability.
        let calls = try systemCalls(inTrace: trace)
        for name in ["BLKFLSBUF", "BLKRRPART"] {
            let results = calls.filter { $0.contains(name) }
            #expect(!results.isEmpty && results.allSatisfy { $0.hasSuffix(" = 0") }, "\(results)")
        }
        #expect(try blkferry(server.url(disk.path), back.path).status == 0)
        #expect(try blkferry("verify", server.url(disk.path), back.path).status == 0)
        // The session's device is free again at once.
        #expect(try blkferry(source.path, server.url(disk.path)).status == 0)
    }

    @Test func `the gate names mounts, and processes that it may not look into`() throws {
        let mount = try LoopMount(size: size, options: "ro")
        let claimed = try LoopDevice(size: size)
        let locked = try scratch.sparseFile("locked", size: size)
        let hidden = try LoopDevice(size: size)
        try must("mkfs.ext4", "-q", hidden.path)
        try must("mkdir", scratch.file("inside"))
        let holder = try RunningProgram([
            "python3", "-c",
            """
            import fcntl, os, sys, time
            os.open(sys.argv[1], os.O_RDWR | os.O_EXCL)
            file = open(sys.argv[2], 'r+')
            fcntl.lockf(file, fcntl.LOCK_EX)
            open(sys.argv[3], 'w').close()
            time.sleep(600)
            """, claimed.path, locked, scratch.file("ready"),
        ])
        let container = try RunningProgram([
            "unshare", "-m", "sh", "-c",
            "mount -o ro $0 $1/inside && touch $1/mounted && exec sleep 600", hidden.path,
            scratch.path,
        ])
        for name in ["ready", "mounted"] {
            #expect(becomesTrue { FileManager.default.fileExists(atPath: scratch.file(name)) })
        }
        let targets = [mount.loop.path, claimed.path, locked, hidden.path]
        let server = try ServeProcess(options: targets.flatMap { ["--export", "\($0):rw"] })
        let words = [
            "mounted on \(mount.path)", "process \(holder.processID) (python3)",
            "process \(holder.processID) (python3)", "process \(container.processID) (sleep)",
        ]
        for (target, word) in zip(targets, words) {
            let result = try blkferry("--overwrite", image, server.url(target))
            #expect(result.status == 2 && result.errors.contains(word), "\(target): \(result)")
        }
        try expectNothing(of: server)
    }

    @Test func `another program's write to the target is noticed without any capability`() throws {
        let target = try LoopDevice(size: size)
        let server = try ServeProcess("\(target.path):rw")
        // Its data is more than a megabyte.
        let push = try RunningProgram([
            program, "-c", "1", "--bwlimit", "200K", "-W", image, server.url(target.path),
        ])
        defer { push.signal(SIGKILL) }
        while push.isRunning, try !server.log().contains("session begins") { usleep(5_000) }
        try overwrite(target.path, [9], at: size - 4096)
        let result = try push.wait()
        #expect(result.status == 1 && result.errors.contains("another program"), "\(result)")
        try expectNothing(of: server)
    }

    @Test(arguments: [false, true])
    func `images of other users keep the capabilities that they need`(isDirectory: Bool) throws {
        try must("mkdir", "-m", "755", scratch.file("theirs"))
        let path = scratch.file("theirs/image")
        try must("cp", image, path)
        try must("chown", "4242:4242", path)
        try must("chmod", "600", path)
        let export = isDirectory ? scratch.file("theirs/") : path
        let readOnly = try ServeProcess(export)
        #expect(try capabilities(readOnly) == Self.readSearch)
        #expect(try capabilities(readOnly, "CapBnd") == Self.readSearch)
        #expect(try blkferry(readOnly.url(path), scratch.file("copy")).status == 0)
        let writing = try ServeProcess(export + ":rw")
        #expect(try capabilities(writing, "CapEff") == Self.overrideAccess | Self.lease)
        try fill(image, seed: 8, size: 1 << 20, offset: 6 << 20)
        #expect(try blkferry("--verify", image, writing.url(path)).status == 0)
        #expect(try areEqual(image, path))
    }

    @Test func `a directory that other users can write to keeps the capabilities for their images`()
        throws
    {
        let directory = scratch.file("open")
        try must("mkdir", "-m", "1777", directory)
        let server = try ServeProcess("\(directory)/:rw")
        #expect(try capabilities(server) == Self.overrideAccess | Self.lease)
        let theirs = "\(directory)/theirs"
        try must(
            "setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups", "sh", "-c",
            "umask 077; truncate -s \(size) \(theirs)")
        #expect(try blkferry("--verify", image, server.url(theirs)).status == 0)
    }

    @Test func `exports that need a dropped capability are refused at SIGHUP, and the others stay`()
        throws
    {
        let theirs = try scratch.sparseFile("theirs", size: size)
        try must("chown", "4242:4242", theirs)
        try must("chmod", "600", theirs)
        let exports = scratch.file("exports")
        func write(_ lines: String...) throws {
            try must(
                "sh", "-c", "printf '%s\\n' \(lines.joined(separator: " ")) > \(exports)")
        }
        try write(image)
        let server = try ServeProcess(options: ["--exports-file", exports])
        try write(image, theirs)
        try reload(server, until: "not reloaded: \(theirs): ")
        #expect(try server.log().contains("CAP_DAC_READ_SEARCH"))
        try write(image, "vg1:rw")
        try reload(server, until: "not reloaded: vg1: ")
        #expect(try server.log().contains("to run LVM as root"))
        #expect(try blkferry("verify", image, server.url(image)).status == 0)
        // What was there before never keeps the files from being read.
        try must("chown", "4242:4242", image)
        try must("chmod", "600", image)
        try write(image)
        try reload(server, until: " reloaded")
    }

    @Test func `exports of volumes leave root's capabilities to LVM's programs`() throws {
        let server = try ServeProcess("vg-that-is-not:rw")
        #expect(try capabilities(server) == 0)
        #expect(try capabilities(server, "CapBnd") != 0)
    }

    @Test func `a server that root did not start keeps its capabilities`() throws {
        try must("chmod", "755", scratch.path)
        try must("chmod", "644", image)
        let server = try ServeProcess(
            image,
            prefix: [
                "setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups",
                "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
            ], binary: try copiedProgram())
        #expect(try capabilities(server) == Self.readSearch)
    }

    /// The program where every user can start it.
    private func copiedProgram() throws -> String {
        let path = scratch.file("blkferry")
        try must("cp", program, path)
        try must("chmod", "755", path)
        return path
    }
}
