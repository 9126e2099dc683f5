// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// The same as `DeviceEndTests` of the files behind loop devices.
@Suite(.blocking, .timeLimit(.minutes(60)), .enabled(if: isRoot, "loop devices need root"))
struct BackingFileEndTests {
    private let size = 12 << 20
    private let scratch: ScratchDirectory
    private let source: String

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.filledFile("source", size: size, seed: 1)
    }

    /// Opens a file for writing, changes it in a way, and keeps it open.
    private static let holder = """
        import mmap, os, sys, time
        path, ready, way = sys.argv[1:]
        file = os.open(path, os.O_RDWR)
        if way == "pwrite":
            os.pwrite(file, bytes(4096), 0)
        if way == "memory map":
            memory = mmap.mmap(file, 4096)
            memory[:] = bytes(4096)
        open(ready, "w").close()
        time.sleep(600)
        """

    @Test(arguments: ["nothing", "pwrite", "memory map"], [false, true])
    func `a target whose backing file another program keeps open for writing is compared`(
        way: String, isServed: Bool
    ) throws {
        let target = try LoopDevice(size: size)
        let server = try isServed ? ServeProcess("\(target.path):rw") : nil
        let ready = scratch.file("ready")
        var holder: RunningProgram?
        let result = try blkferry(
            slowly: [source, server?.url(target.path) ?? target.path],
            once: { holdsData(target.backingFile) }
        ) {
            holder = try RunningProgram([
                "python3", "-c", Self.holder, target.backingFile, ready, way,
            ])
            try #require(becomesTrue { FileManager.default.fileExists(atPath: ready) })
        }
        #expect(result.status == (way == "nothing" ? 0 : 1), "\(result)")
        #expect(try areEqual(source, target.path) == (way == "nothing"))
        withExtendedLifetime((holder, server)) {}
    }

    @Test(arguments: ["off", "on"], [false, true])
    func `a target whose backing file was cut and extended again is no success`(
        directIO: String, isServed: Bool
    ) throws {
        let target = try LoopDevice(size: size)
        try must("losetup", "--direct-io=\(directIO)", target.path)
        let server = try isServed ? ServeProcess("\(target.path):rw") : nil
        let result = try blkferry(
            slowly: [source, server?.url(target.path) ?? target.path],
            once: { holdsData(target.backingFile) }
        ) {
            try must(
                "python3", "-c",
                "import os, sys; path = sys.argv[1]; size = os.stat(path).st_size; "
                    + "os.truncate(path, 4096); os.truncate(path, size)", target.backingFile)
        }
        #expect(result.status == 1, "\(result)")
        withExtendedLifetime(server) {}
    }

    /// Removes a file, renames it, or puts another one in its place.
    private func lose(_ file: String, _ way: String) throws {
        switch way {
        case "removed": try must("rm", file)
        case "renamed": try must("mv", file, scratch.file("renamed"))
        default:
            let other = try scratch.sparseFile("other", size: size)
            try must("mv", other, file)
        }
    }

    @Test(arguments: ["removed", "renamed", "replaced"], [false, true])
    func `a target is no success if the file two levels below it is lost`(
        way: String, isServed: Bool
    ) throws {
        let lower = try LoopDevice(size: size)
        let upper = try LoopDevice(backingFile: lower.path)
        // The writes must reach the file during the run.
        try must("losetup", "--direct-io=on", upper.path)
        let server = try isServed ? ServeProcess("\(upper.path):rw") : nil
        let result = try blkferry(
            slowly: [source, server?.url(upper.path) ?? upper.path],
            once: { holdsData(lower.backingFile) }
        ) { try lose(lower.backingFile, way) }
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("check at the end: "), "\(result)")
        withExtendedLifetime((lower, upper, server)) {}
    }

    @Test(arguments: [false, true])
    func `an image is no success if the file behind its file system is lost`(isNew: Bool) throws {
        let mount = try LoopMount()
        let image = "\(mount.path)/image"
        if !isNew { try must("truncate", "-s", "\(size)", image) }
        let result = try blkferry(slowly: [source, image], once: { holdsData(image) }) {
            try must("rm", mount.loop.backingFile)
        }
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("the file behind it has no name any more"), "\(result)")
        withExtendedLifetime(mount) {}
    }

    @Test func `an image whose file system on a loop device is written to is a success`() throws {
        let mount = try LoopMount()
        let image = "\(mount.path)/image"
        let result = try blkferry(slowly: [source, image], once: { holdsData(image) }) {
            try must("touch", "\(mount.path)/other")
            try must("sync", "-f", mount.path)
        }
        #expect(result.status == 0, "\(result)")
        withExtendedLifetime(mount) {}
    }

    @Test func `a source is no success if the file two levels below it is lost`() throws {
        let lower = try LoopDevice(size: size)
        try fill(lower.path, seed: 1, size: size)
        let upper = try LoopDevice(backingFile: lower.path)
        let target = try scratch.sparseFile("target", size: size)
        let result = try blkferry(
            slowly: [upper.path, target], once: { holdsData(target) }
        ) { try must("rm", lower.backingFile) }
        #expect(result.status == 3, "\(result)")
        let start = "\(upper.path): check at the end: the file behind it has no name"
        #expect(result.errors.contains(start), "\(result)")
        withExtendedLifetime((lower, upper)) {}
    }
}
