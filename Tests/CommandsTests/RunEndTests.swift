// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import Glibc
import TestSupport
import Testing

/// What becomes of a run whose devices are not at its end what they were at its beginning.
@Suite(.blocking, .timeLimit(.minutes(60))) struct RunEndTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let target: String
    private let size = 12 << 20

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.filledFile("source", size: size, seed: 1)
        try must("mkdir", scratch.file("d"))
        target = scratch.file("d/target")
    }

    private func sync(
        _ options: String..., disturbedBy disturb: () throws -> Void
    ) throws -> ProgramResult {
        try blkferry(
            slowly: options + [source, target], once: { holdsData(target) }, disturb)
    }

    @Test func `a target that was removed is no success`() throws {
        let result = try sync { try must("rm", target) }
        #expect(result.status == 3, "\(result)")
        #expect(
            result.errors.contains("\(target): check at the end: nothing has that name any more"))
    }

    @Test func `a target that was replaced is no success`() throws {
        let other = try scratch.sparseFile("other", size: size)
        let result = try sync { try must("mv", other, target) }
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("another file or device has that name now"))
    }

    @Test func `a target whose directory was moved is no success`() throws {
        let result = try sync { try must("mv", scratch.file("d"), scratch.file("e")) }
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("nothing has that name any more"))
    }

    @Test func `a target with another hard link may lose that link`() throws {
        let result = try sync {
            try must("ln", target, scratch.file("second"))
            try must("rm", scratch.file("second"))
        }
        #expect(result.status == 0, "\(result)")
    }

    @Test func `a target that was extended is no success`() throws {
        let result = try sync { try must("truncate", "-s", "+1M", target) }
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("its size has changed from"))
    }

    @Test func `a target that was cut behind the run's position is no success`() throws {
        let result = try sync("-W") { try must("truncate", "-s", "64K", target) }
        #expect(result.status == 1, "\(result)")
        #expect(result.errors.contains("another program wrote to it during the run"))
    }

    /// Opens a file for writing, and writes to it by io_submit(2), which fanotify(7) reports only when
    /// the file is closed.
    private static let asynchronousWriter = """
        import ctypes, os, platform, struct, sys, time
        setup, submit = {"x86_64": (206, 209)}.get(platform.machine(), (0, 2))
        c = ctypes.CDLL(None)
        file = os.open(sys.argv[1], os.O_RDWR)
        context = ctypes.c_ulong(0)
        assert c.syscall(setup, 8, ctypes.byref(context)) == 0
        data = ctypes.create_string_buffer(bytes([7] * 4096), 4096)
        block = ctypes.create_string_buffer(struct.pack(
            "<QIIHhIQQqQII", 0, 0, 0, 1, 0, file, ctypes.addressof(data), 4096, 0, 0, 0, 0), 64)
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(block))
        if sys.argv[3] == "write":
            assert c.syscall(submit, context, ctypes.c_long(1), pointers) == 1
        open(sys.argv[2], "w").close()
        time.sleep(60)
        """

    @Test(arguments: [false, true], [false, true])
    func `a target that another program keeps open for writing is compared`(
        isWritten: Bool, isServed: Bool
    ) throws {
        try must("truncate", "-s", "\(size)", target)
        let server = try isServed ? ServeProcess("\(target):rw") : nil
        let ready = scratch.file("ready")
        var writer: RunningProgram?
        let result = try blkferry(
            slowly: [source, server?.url(target) ?? target], once: { holdsData(target) }
        ) {
            writer = try RunningProgram([
                "python3", "-c", Self.asynchronousWriter, target, ready,
                isWritten ? "write" : "open",
            ])
            try #require(becomesTrue { FileManager.default.fileExists(atPath: ready) })
        }
        #expect(result.status == (isWritten ? 1 : 0), "\(result)")
        #expect(try areEqual(source, target) == !isWritten)
        withExtendedLifetime((writer, server)) {}
    }

    @Test(arguments: [[], ["-W"], ["--verify"]])
    func `a target that another program writes to is no success`(options: [String]) throws {
        let result = try blkferry(
            slowly: options + [source, target], once: { holdsData(target) }
        ) {
            try must(
                "dd", "if=/dev/zero", "of=\(target)", "bs=4K", "count=1", "conv=notrunc",
                "status=none")
        }
        #expect(result.status == 1, "\(result)")
        #expect(try blkferry(source, target).status == 0)
        #expect(try areEqual(source, target))
    }

    @Test(
        .enabled(if: isRoot, "loop devices need root"),
        arguments: [(false, false), (false, true), (true, false), (true, true)])
    func `a target that is written to through a loop device is no success`(
        isRemote: Bool, isDetached: Bool
    ) throws {
        let server = isRemote ? try ServeProcess("\(scratch.file("d"))/:rw") : nil
        var loop: String?
        defer { if let loop { _ = try? run("losetup", "-d", loop) } }
        let result = try blkferry(
            slowly: [source, server?.url(target) ?? target], once: { holdsData(target) }
        ) {
            let path = try must("losetup", "-f", "--show", target).filter { $0 != "\n" }
            loop = path
            try must(
                "dd", "if=/dev/zero", "of=\(path)", "bs=4K", "count=1", "conv=fsync",
                "status=none")
            guard isDetached else { return }
            try must("losetup", "-d", path)
            loop = nil
        }
        #expect(result.status == 1, "\(result)")
    }

    @Test(.enabled(if: isRoot, "loop devices need root"))
    func `a write through a loop device behind the comparison after the flush is no success`()
        throws
    {
        let size = 48 << 20
        let large = try scratch.filledFile("large", size: size, seed: 2)
        let end = size - 4096
        let last = try Superblocks.bytes(of: large, at: end, count: 4096)
        // With one thread the end is written last. The comparison takes more than a second.
        let comparesAfterFlush = {
            guard (try? Superblocks.bytes(of: target, at: end, count: 4096)) == last else {
                return false
            }
            usleep(200_000)
            return true
        }
        let result = try blkferry(
            slowly: ["--verify", large, target], once: comparesAfterFlush
        ) {
            let path = try must("losetup", "-f", "--show", target).filter { $0 != "\n" }
            defer { _ = try? run("losetup", "-d", path) }
            try must(
                "dd", "if=/dev/zero", "of=\(path)", "bs=4K", "count=1", "conv=fsync",
                "status=none")
        }
        #expect(result.status == 1, "\(result)")
        #expect(result.errors.contains("another program had it open for writing"), "\(result)")
    }

    @Test(arguments: [[], ["--verify"]])
    func `a second run that waits for the target does not spoil the first`(options: [String])
        throws
    {
        let result = try blkferry(
            slowly: options + [source, target], once: { holdsData(target) }
        ) { _ = try blkferry("--wait", "3s", source, target) }
        #expect(result.status == 0, "\(result)")
    }

    @Test(arguments: [false, true])
    func `a target that another program had open for writing is compared again`(isRemote: Bool)
        throws
    {
        let server = isRemote ? try ServeProcess("\(scratch.file("d"))/:rw") : nil
        let result = try blkferry(
            slowly: [source, server?.url(target) ?? target], once: { holdsData(target) }
        ) { try must("sh", "-c", ": 3<>\(target)") }
        #expect(result.status == 0, "\(result)")
        #expect(result.output.contains("synced, flushed, verified"), "\(result)")
    }

    @Test func `a target that another program only reads is a success`() throws {
        let result = try sync("--json") { try must("cksum", target) }
        #expect(result.status == 0, "\(result)")
        #expect(result.output.contains("\"targetChanged\":false"))
    }

    @Test(arguments: ["rm SOURCE", "mv OTHER SOURCE", "truncate -s +1M SOURCE"])
    func `a source that was removed, replaced or extended is no success`(command: String) throws {
        _ = try scratch.sparseFile("other", size: size)
        let words = command.split(separator: " ").map {
            $0 == "SOURCE" ? source : $0 == "OTHER" ? scratch.file("other") : String($0)
        }
        let result = try sync { try must(words) }
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("\(source): check at the end: "))
    }

    @Test(arguments: ["rm", "mv", "dd"])
    func `a server checks its target again at the end`(command: String) throws {
        let other = try scratch.sparseFile("other", size: size)
        let server = try ServeProcess("\(scratch.file("d"))/:rw")
        let result = try blkferry(
            slowly: [source, server.url(target)], once: { holdsData(target) }
        ) {
            switch command {
            case "rm": try must("rm", target)
            case "mv": try must("mv", other, target)
            default:
                try must("dd", "if=/dev/zero", "of=\(target)", "bs=4K", "count=1", "conv=notrunc")
            }
        }
        #expect(result.status == (command == "dd" ? 1 : 3), "\(result)")
        #expect(result.errors.contains(server.url(target)))
    }

    private func disturb(_ script: String) throws {
        try must("sh", "-e", "-c", "cd \(scratch.path); \(script)")
    }

    /// The exported directory is `d`, or `link`, which leads to it.
    @Test(arguments: [
        ("d", "mv d/target d/other", "nothing has that name any more"),
        ("d", "mv d e", "nothing has that name any more"),
        ("d", "mv d e; mkdir d", "nothing has that name any more"),
        ("d", "mv d e; mkdir d; touch d/target", "another file or device has that name now"),
        ("d", "mv d/target e; ln -s ../e d/target", "another file or device has that name now"),
        ("link", "mkdir e; ln -sfn e link", "nothing has that name any more"),
    ])
    func `a server finds that its target has lost its name`(
        export: String, script: String, reason: String
    ) throws {
        _ = try scratch.sparseFile("d/target", size: size)
        try must("ln", "-s", "d", scratch.file("link"))
        let server = try ServeProcess("\(scratch.file(export))/:rw")
        let url = server.url(scratch.file("\(export)/target"))
        let result = try blkferry(slowly: [source, url], once: { holdsData(target) }) {
            try disturb(script)
        }
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("\(url): check at the end: \(reason)"), "\(result)")
    }

    @Test func `a server finds that the directory of its new target was moved`() throws {
        let server = try ServeProcess("\(scratch.file("d"))/:rw")
        let result = try blkferry(
            slowly: [source, server.url(target)], once: { holdsData(target) }
        ) { try disturb("mv d e; mkdir d") }
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("nothing has that name any more"), "\(result)")
    }

    @Test func `a target in two exported directories keeps its name`() throws {
        try must("mkdir", scratch.file("d/e"))
        let target = try scratch.sparseFile("d/e/target", size: size)
        let server = try ServeProcess("\(scratch.file("d"))/:rw", "\(scratch.file("d/e"))/")
        let result = try blkferry(
            slowly: [source, server.url(target)], once: { holdsData(target) }
        ) { try disturb("ln d/e/target second; rm second") }
        #expect(result.status == 0, "\(result)")
    }

    @Test(arguments: ["mv d/source d/other", "mv d e; mkdir d"])
    func `a server finds that its source has lost its name`(script: String) throws {
        try must("mv", source, scratch.file("d/source"))
        let server = try ServeProcess("\(scratch.file("d"))/", prefix: slowReads(by: 8))
        let url = server.url(scratch.file("d/source"))
        let copy = scratch.file("copy")
        let result = try blkferry(slowly: [url, copy], once: { holdsData(copy) }) {
            try disturb(script)
        }
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("nothing has that name any more"), "\(result)")
    }

    @Test func `a server checks its source again at the end`() throws {
        let other = try scratch.sparseFile("other", size: size)
        let server = try ServeProcess(source, prefix: slowReads(by: 8))
        let result = try blkferry(
            slowly: [server.url(source), target], once: { holdsData(target) }
        ) { try must("mv", other, source) }
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("another file or device has that name now"))
    }
}
