// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import Glibc
import TestSupport
import Testing

@testable import Commands

@Suite struct TimeSpanTests {
    @Test(arguments: [
        ("0", 0.0), ("30", 30), ("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86_400),
        ("1.5h", 5400), ("0.25s", 0.25),
    ])
    func `durations are read as people write them`(text: String, seconds: Double) {
        #expect(TimeSpan(text)?.duration == .milliseconds(Int(seconds * 1000)))
    }

    @Test(arguments: ["", "s", "-1", "1x", "1 m", "1.2.3", ".5", "5.", "1e3", "99999d", "inf"])
    func `text that is no duration is refused`(text: String) {
        #expect(TimeSpan(text) == nil)
    }
}

/// Targets that are busy for a while.
@Suite(
    .enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct WaitTests {
    private let scratch: ScratchDirectory
    private let size = 8 << 20
    private let image: String

    init() throws {
        scratch = try ScratchDirectory()
        image = try scratch.sparseFile("image", size: size)
        try must("mkfs.ext4", "-q", image)
    }

    /// A shell that holds a lock, as flock(1) makes it, until it is told to end.
    private func locker(_ path: String, _ option: String) throws -> RunningProgram {
        let ready = scratch.file("ready")
        let locker = try RunningProgram([
            "sh", "-c", "exec 9<\"$1\" && flock \(option) 9 && : >\"$2\" && exec sleep 60", "sh",
            path, ready,
        ])
        while locker.isRunning, !FileManager.default.fileExists(atPath: ready) { usleep(10_000) }
        return locker
    }

    @Test(arguments: ["-s", "-x"])
    func `the gate waits for a lock on a device, as udev takes it`(option: String) throws {
        let disk = try LoopDevice(size: size)
        let locker = try locker(disk.path, option)
        let run = try RunningProgram([program, image, disk.path])
        try run.waitUntil(says: "waiting for up to 10 s: it is locked by process")
        locker.signal(SIGKILL)
        let result = try run.wait()
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(image, disk.path))
        #expect(result.errors.split(separator: "\n").count == 1, "\(result)")
    }

    @Test func `the gate waits for a claim without a mount`() throws {
        let disk = try LoopDevice(size: size)
        let ready = scratch.file("ready")
        let claimant = try RunningProgram([
            "python3", "-c",
            """
            import os, sys, time
            f = os.open(sys.argv[1], os.O_RDWR | os.O_EXCL)
            open(sys.argv[2], 'w').close()
            time.sleep(60)
            """, disk.path, ready,
        ])
        while claimant.isRunning, !FileManager.default.fileExists(atPath: ready) { usleep(10_000) }
        let run = try RunningProgram([program, image, disk.path])
        try run.waitUntil(says: "waiting for up to 10 s: it is claimed by process")
        claimant.signal(SIGKILL)
        #expect(try run.wait().status == 0)
    }

    @Test func `--wait 0 does not wait for a lock`() throws {
        let target = scratch.file("target")
        try must("cp", image, target)
        let locker = try locker(target, "-x")
        let result = try blkferry("--wait", "0", image, target)
        #expect(result.status == 2, "\(result)")
        #expect(!result.errors.contains("waiting"))
        withExtendedLifetime(locker) {}
    }

    @Test(arguments: [false, true])
    func `--wait waits for a mounted target`(isServed: Bool) throws {
        let mount = try LoopMount(size: size)
        let server = isServed ? try ServeProcess(mount.loop.path + ":rw") : nil
        let target = server?.url(mount.loop.path) ?? mount.loop.path
        let run = try RunningProgram([program, "--wait", "5m", "--overwrite", image, target])
        try run.waitUntil(says: "waiting for up to 300 s: \(target): refused: it is mounted on ")
        try must("umount", mount.path)
        let result = try run.wait()
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(image, mount.loop.path))
    }

    @Test(arguments: [SIGINT, SIGTERM])
    func `a signal ends the wait for a target`(number: Int32) throws {
        let mount = try LoopMount(size: size)
        let run = try RunningProgram([program, "--wait", "2h", image, mount.loop.path])
        try run.waitUntil(says: "waiting for")
        run.signal(number)
        #expect(try run.wait().status == 130)
    }

    @Test func `when --wait is over the refusal is printed`() throws {
        let mount = try LoopMount(size: size)
        let result = try blkferry("-q", "--wait", "1s", image, mount.loop.path)
        #expect(result.status == 2)
        #expect(
            result.errors.hasPrefix("blkferry: \(mount.loop.path): refused: it is mounted on "))
    }
}
