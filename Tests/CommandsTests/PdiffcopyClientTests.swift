// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// The real pdiffcopy as the client of `serve`, with images: what needs no root.
@Suite(.blocking, .timeLimit(.minutes(60))) struct PdiffcopyClientTests {
    private let scratch: ScratchDirectory
    private let server: ServeProcess
    private let source: String
    private let size = (5 << 20) + 777

    init() throws {
        scratch = try ScratchDirectory()
        let there = scratch.file("there")
        try FileManager.default.createDirectory(atPath: there, withIntermediateDirectories: false)
        try must("mkdir", scratch.file("archive"))
        server = try ServeProcess("\(there)/:rw", "\(scratch.file("archive"))/")
        source = try scratch.filledFile("source", size: size, seed: 1)
    }

    private func there(_ name: String) -> String { scratch.file("there/\(name)") }
    private func url(_ name: String) -> String { server.url(there(name)) }

    // pdiffcopy's own test cases follow, with the names that they have there.

    @Test(arguments: [[], ["-W"], ["-n"]])
    func `pdiffcopy pushes to blkferry by delta, in full and as a dry run`(flags: [String]) throws {
        let target = try scratch.filledFile("there/target", size: size, seed: 2)
        let result = try Pdiffcopy.client(flags + [source, url("target")])
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, target) == (flags != ["-n"]))
    }

    @Test(arguments: [[], ["-W"], ["-n"]])
    func `pdiffcopy pulls from blkferry by delta, in full and as a dry run`(flags: [String]) throws
    {
        try must("cp", source, there("source"))
        let target = try scratch.filledFile("target", size: size, seed: 2)
        let result = try Pdiffcopy.client(flags + [url("source"), target])
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, target) == (flags != ["-n"]))
    }

    @Test func `pdiffcopy transfers nothing between equal images`() throws {
        try must("cp", source, there("target"))
        for arguments in [[source, url("target")], [url("target"), source]] {
            let result = try Pdiffcopy.client(arguments)
            #expect(result.status == 0 && result.errors.contains("Nothing to do!"), "\(result)")
        }
        #expect(try areEqual(source, there("target")))
    }

    @Test func `pdiffcopy creates a missing target in either direction`() throws {
        let push = try Pdiffcopy.client([source, url("target")])
        #expect(push.status == 0, "\(push)")
        #expect(try areEqual(source, there("target")))
        let pull = try Pdiffcopy.client([url("target"), scratch.file("back")])
        #expect(pull.status == 0, "\(pull)")
        #expect(try areEqual(source, scratch.file("back")))
    }

    @Test func `pdiffcopy's benchmark pulls from blkferry`() throws {
        try must("cp", source, there("source"))
        // It does not get over one that is not there.
        _ = try scratch.sparseFile("target", size: size)
        let result = try RunningProgram(
            [Pdiffcopy.program, "--benchmark=3", url("source"), scratch.file("target")],
            environment: ["PDIFFCOPY_BENCHMARK": "allowed"]
        ).wait()
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, scratch.file("target")))
    }

    // What pdiffcopy does not try itself.

    @Test(
        arguments: ["sha1", "md5", "sha256", "blake2b", "sha3_256"],
        [511, (5 << 20) + 777])
    func `every digest method works with every length`(method: String, size: Int) throws {
        let image = try scratch.filledFile("odd", size: size, seed: 5)
        let (there, back) = (there("odd"), scratch.file("back"))
        for change in [nil, size / 2] {
            if let change { try overwrite(image, [77], at: change) }
            let push = try Pdiffcopy.client(["-m", method, image, url("odd")])
            #expect(push.status == 0, "\(push)")
            #expect(try areEqual(image, there))
            let pull = try Pdiffcopy.client(["-m", method, url("odd"), back])
            #expect(pull.status == 0, "\(pull)")
            #expect(try areEqual(image, back))
        }
    }

    @Test(arguments: ["1000", "4096", "5K", "65537", "3 MB", "16M"], ["1", "4"])
    func `every block size works with every concurrency`(block: String, workers: String) throws {
        let flags = ["-b", block, "-c", workers]
        let target = try scratch.sparseFile("there/target", size: size)
        try must("cp", source, target)
        for offset in [0, 999, 1_000_000, 2_500_000, size - 1] {
            try overwrite(target, [UInt8(offset & 255) ^ 0x55], at: offset)
        }
        let push = try Pdiffcopy.client(flags + [source, url("target")])
        #expect(push.status == 0, "\(push)")
        #expect(try areEqual(source, target))
        let back = try scratch.sparseFile("back", size: size)
        try must("cp", source, back)
        try overwrite(back, [1, 2, 3, 4, 5, 6, 7, 8], at: 3_333_333)
        let pull = try Pdiffcopy.client(flags + [url("target"), back])
        #expect(pull.status == 0, "\(pull)")
        #expect(try areEqual(source, back))
    }

    @Test(arguments: [0, 1, 1_000_000, 8 << 20])
    func `an image gets the source's size`(old: Int) throws {
        let target = try scratch.sparseFile("there/target", size: old)
        let dry = try Pdiffcopy.client(["-n", source, url("target")])
        #expect(dry.status == 0, "\(dry)")
        #expect(try [UInt8](contentsOf: target).count == old)
        let result = try Pdiffcopy.client([source, url("target")])
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, target))
    }

    @Test func `names with odd letters are the same on both sides`() throws {
        let name = "with space & more=1+2 %41é:rw"
        try must("cp", source, there(name))
        try overwrite(there(name), [1, 2, 3], at: 5)
        let result = try Pdiffcopy.client([source, url(name)])
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, there(name)))
    }

    /// Runs it and expects it to fail with something in what it prints.
    private func expectRefusal(_ arguments: [String], _ text: String) throws {
        let result = try Pdiffcopy.client(arguments)
        #expect(result.status == 1, "\(arguments): \(result)")
        #expect(result.errors.contains(text), "\(arguments): \(result)")
    }

    @Test func `an export that is missing or read-only is refused visibly`() throws {
        let elsewhere = try scratch.sparseFile("elsewhere", size: size)
        try expectRefusal([source, server.url(elsewhere)], "404 Client Error")
        try expectRefusal([server.url(elsewhere), source], "exports no such device")
        try expectRefusal([source, server.url(scratch.file("missing"))], "exports no such device")
        try must("cp", elsewhere, scratch.file("archive/a"))
        for name in ["a", "missing"] {
            let target = server.url(scratch.file("archive/\(name)"))
            try expectRefusal([source, target], "403 Client Error")
            try expectRefusal([source, target + ":overwrite"], "the server exports it read-only")
        }
        #expect(try Pdiffcopy.client([server.url(scratch.file("archive/a")), source]).status == 0)
        #expect(try areEqual(elsewhere, source))
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.file("there")) == [])
        let empty = try scratch.sparseFile("empty", size: 0)
        try must("cp", elsewhere, there("a"))
        try expectRefusal(["-b", "128M", elsewhere, url("a")], "block_size is not a number from 1")
        try expectRefusal([source, url("a") + "/b"], "404 Client Error")
        #expect(try Pdiffcopy.client([empty, url("a")]).status == 1)
        #expect(try [UInt8](contentsOf: there("a")).count == size)
    }

    @Test func `content of an image is overwritten only if the file name says so`() throws {
        let foreign = try scratch.sparseFile("there/image", size: 8 << 20)
        try must("mkfs.ext4", "-q", "-L", "precious", foreign)
        let before = try [UInt8](contentsOf: foreign)
        let same = try scratch.sparseFile("same", size: 8 << 20)
        for from in [source, same] {
            for flags in [[], ["-n"]] {
                try expectRefusal(flags + [from, url("image")], "it holds ext4 \"precious\"")
            }
            try expectRefusal([from, url("image")], "end the file name with :overwrite")
        }
        #expect(try [UInt8](contentsOf: foreign) == before)
        let result = try Pdiffcopy.client([source, url("image:overwrite")])
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, foreign))
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: scratch.file("there")) == ["image"])
    }

    @Test func `a server with tokens lets no pdiffcopy in`() throws {
        let tokens = scratch.file("tokens")
        try must("sh", "-c", "umask 077; echo 'one a-token-of-enough-characters' > \(tokens)")
        let server = try ServeProcess(
            "\(scratch.file("there"))/:rw", options: ["--token-file", tokens])
        try must("cp", source, there("image"))
        for arguments in [
            [source, server.url(there("image"))], [server.url(there("image")), source],
        ] {
            try expectRefusal(arguments, "401 Client Error")
            try expectRefusal(arguments, "pdiffcopy cannot show one")
        }
    }

    /// Its workers are of its process group, and outlive it.
    private func killWithWorkers(_ client: RunningProgram) throws {
        _ = try run("kill", "-9", "--", "-\(client.processID)")
        _ = try client.wait()
    }

    @Test func `a client that was killed makes room for the next client`() throws {
        let server = try ServeProcess(
            "\(scratch.file("there"))/:rw", options: ["--session-timeout", "1"])
        let large = try scratch.filledFile("large", size: 64 << 20, seed: 9)
        let client = try RunningProgram(
            [Pdiffcopy.program, "-b", "16K", large, server.url(there("image"))])
        let wanted = try [UInt8](contentsOf: large, count: 4096)
        while client.isRunning, (try? [UInt8](contentsOf: there("image"), count: 4096)) != wanted {
            usleep(2_000)
        }
        #expect(client.isRunning)
        try killWithWorkers(client)
        let locked = try blkferry(source, server.url(there("image")))
        if locked.status != 0 { #expect(locked.errors.contains("is writing to it"), "\(locked)") }
        var result = try blkferry(large, server.url(there("image")))
        for _ in 0..<100 where result.status == 2 {
            usleep(100_000)
            result = try blkferry(large, server.url(there("image")))
        }
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(large, there("image")))
        #expect(try server.log().contains("end=silent"))
    }

    @Test(arguments: [true, false])
    func `a client of a server that was killed reports an error`(isPush: Bool) throws {
        let large = try scratch.filledFile("large", size: 64 << 20, seed: 9)
        try must("cp", large, there("large"))
        let target = isPush ? there("image") : scratch.file("image")
        let arguments = isPush ? [large, url("image")] : [url("large"), target]
        let client = try RunningProgram([Pdiffcopy.program, "-b", "16K"] + arguments)
        let wanted = try [UInt8](contentsOf: large, count: 4096)
        while client.isRunning, (try? [UInt8](contentsOf: target, count: 4096)) != wanted {
            usleep(2_000)
        }
        try server.kill()
        // Its workers end one by one, each with a message; it may wait for them for ever.
        try client.waitUntil(says: "ConnectionError")
        #expect(try client.errorsSoFar().contains("ConnectionError"))
        try killWithWorkers(client)
        try server.startAgain()
        let again = try Pdiffcopy.client(arguments)
        #expect(again.status == 0, "\(again)")
        #expect(try areEqual(large, target))
    }
}

/// The same with block devices.
@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct PdiffcopyClientDeviceTests {
    private let size = 16 << 20

    @Test(arguments: [512, 4096], [[], ["-W"], ["-b", "5000"], ["-m", "blake2b", "-b", "64K"]])
    func `an image is copied to a device and back`(sector: Int, flags: [String]) throws {
        let scratch = try ScratchDirectory()
        let device = try LoopDevice(size: size, sectorSize: sector)
        let server = try ServeProcess(device.path + ":rw")
        let image = try scratch.sparseFile("image", size: size)
        try fill(image, seed: 1, size: 3 << 20, offset: 5_000_000)
        for change in [nil, 1_234_567] {
            if let change { try overwrite(image, [9], at: change) }
            let push = try Pdiffcopy.client(flags + [image, server.url(device.path)])
            #expect(push.status == 0, "\(push)")
            #expect(try areEqual(image, device.path))
        }
        let again = try Pdiffcopy.client(["-m", "md5", image, server.url(device.path)])
        #expect(again.status == 0 && again.errors.contains("Nothing to do!"), "\(again)")
        let back = scratch.file("back")
        let pull = try Pdiffcopy.client(flags + [server.url(device.path), back])
        #expect(pull.status == 0, "\(pull)")
        #expect(try areEqual(image, back))
    }

    private func expectRefusal(_ image: String, _ url: String, _ text: String) throws {
        for flags in [[], ["-n"]] {
            let result = try Pdiffcopy.client(flags + [image, url])
            #expect(result.status == 1, "\(result)")
            #expect(result.errors.contains(text), "\(result)")
        }
    }

    @Test func `a mounted device, and a device with content, are refused`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 64 << 20)
        let mount = try LoopMount(options: "ro")
        let device = mount.loop.path
        let server = try ServeProcess(device + ":rw")
        let mounted = try must("sha256sum", device)
        try expectRefusal(image, server.url(device), "it is mounted")
        try expectRefusal(image, server.url(device) + ":overwrite", "409 Client Error")
        // Reading it is allowed.
        let pull = try Pdiffcopy.client([server.url(device), scratch.file("back")])
        #expect(pull.status == 0, "\(pull)")
        #expect(try must("sha256sum", device) == mounted)
        // It writes a little itself.
        try mount.unmount()
        let before = try must("sha256sum", device)
        try expectRefusal(image, server.url(device), "end the file name with :overwrite")
        #expect(try must("sha256sum", device) == before)
        let result = try Pdiffcopy.client([image, server.url(device) + ":overwrite"])
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(image, device))
    }

    @Test func `a device of another size is refused, and never cut`() throws {
        let scratch = try ScratchDirectory()
        let device = try LoopDevice(size: size)
        let server = try ServeProcess(device.path + ":rw")
        for other in [0, 1, size - 512, size + 512] {
            let image = try scratch.sparseFile("image\(other)", size: other)
            if other > 0 { try fill(image, seed: 1, size: 1) }
            let result = try Pdiffcopy.client([image, server.url(device.path)])
            #expect(result.status == 1 && result.errors.contains("409 Client Error"), "\(result)")
        }
        #expect(try must("blockdev", "--getsize64", device.path) == "\(size)\n")
    }

    @Test(.noSilentDisk) func `a tag in place of a path names a device`() throws {
        let scratch = try ScratchDirectory()
        let device = try LoopDevice(size: size)
        let uuid = "7d6ab1e2-6a0e-4a0e-9a53-0c6f3b2f5e11"
        try must("mkfs.ext4", "-q", "-U", uuid, device.path)
        let server = try ServeProcess("UUID=\(uuid):rw")
        let back = scratch.file("back")
        let pull = try Pdiffcopy.client([server.url("UUID=\(uuid)"), back])
        #expect(pull.status == 0, "\(pull)")
        #expect(try areEqual(device.path, back))
        try expectRefusal(source(scratch), server.url("UUID=\(uuid)"), "it holds ext4")
    }

    private func source(_ scratch: ScratchDirectory) throws -> String {
        let path = try scratch.filledFile("source", size: size, seed: 4)
        return path
    }
}
