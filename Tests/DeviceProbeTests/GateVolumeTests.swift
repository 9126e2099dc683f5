// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import Foundation
import LinuxIO
import Synchronization
import TestSupport
import Testing

@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct GateVolumeTests {
    @Test func `a volume is grown to whole extents, and its tail beyond the source is zeros`()
        throws
    {
        let volume = try LoopVolume(size: 4 * MiB)
        let size = 5 * MiB + 123
        let target = try volume.admit(size, policy())
        #expect(target.sizeBefore == 4 * MiB && target.resizeTo == 8 * MiB)
        #expect(target.device.geometry.size == 4 * MiB && volume.done == ["find"])
        try target.device.resize(to: 8 * MiB)
        #expect(target.device.geometry.size == 8 * MiB)
        try target.device.flush()
        let content = try target.device.content()
        #expect(content[..<size].allSatisfy { $0 == 0xEE })
        #expect(content[size...].allSatisfy { $0 == 0 })
        #expect(volume.done == ["find", "resize 8 MiB"])
    }

    @Test func `a flush before the resize leaves the volume as it is`() throws {
        let volume = try LoopVolume(size: 4 * MiB + 4096)
        let target = try volume.admit(4 * MiB + 8192, policy())
        try target.device.flush()
        #expect(try target.device.content().allSatisfy { $0 == 0xEE })
    }

    @Test func `a volume that fits is not resized, and its tail is zeros`() throws {
        let volume = try LoopVolume(size: 8 * MiB)
        let target = try volume.admit(5 * MiB, policy())
        #expect(target.resizeTo == nil)
        try target.device.flush()
        let content = try target.device.content()
        #expect(content[(5 * MiB)...].allSatisfy { $0 == 0 } && content[5 * MiB - 1] == 0xEE)
        // Of the same size: LVM is not even asked.
        _ = try LoopVolume(size: 8 * MiB).admit(8 * MiB, policy())
    }

    @Test func `a volume that is too large is cut only with --shrink`() throws {
        let volume = try LoopVolume(size: 12 * MiB)
        #expect(throws: IOError.self) { try volume.admit(8 * MiB - 512, policy()) }
        do throws(IOError) { _ = try volume.admit(8 * MiB - 512, policy()) } catch {
            #expect(error.cause == .size && error.advice?.contains("--shrink") == true)
        }
        let target = try volume.admit(8 * MiB - 512, policy(shrinks: true))
        #expect(target.resizeTo == 8 * MiB && target.device.geometry.size == 12 * MiB)
        // What is to be cut is not touched before.
        try target.device.flush()
        #expect(try target.device.content()[(8 * MiB)...].allSatisfy { $0 == 0xEE })
        try target.device.resize(to: 8 * MiB)
        #expect(target.device.geometry.size == 8 * MiB)
    }

    @Test func `a size beyond all numbers does not crash the gate`() throws {
        let volume = try LoopVolume(size: 4 * MiB, obstacle: "there is no room")
        let error = #expect(throws: IOError.self) { try volume.admit(.max, policy()) }
        #expect(error?.description == "TARGET: refused: there is no room")
    }

    @Test func `without the size policy no volume is resized, whatever --shrink says`() throws {
        let volume = try LoopVolume(size: 4 * MiB)
        #expect(throws: IOError.self) {
            try volume.admit(5 * MiB, policy(resizes: false, shrinks: true))
        }
        #expect(volume.done == [])
    }

    @Test func `a dry run reports the size of the volume and changes nothing`() throws {
        let volume = try LoopVolume(size: 4 * MiB)
        let target = try volume.admit(5 * MiB, policy(isDryRun: true, snapshot: "before"))
        #expect(target.resizeTo == 8 * MiB && target.device.geometry.size == 8 * MiB)
        #expect(throws: IOError.self) { try target.device.zero(ByteRange(offset: 0, length: 512)) }
        #expect(volume.done == ["find"])
    }

    @Test func `an obstacle to resizing is a refusal`() throws {
        let volume = try LoopVolume(size: 4 * MiB, obstacle: "it has snapshots")
        do throws(IOError) {
            _ = try volume.admit(5 * MiB, policy())
            Issue.record("admitted")
        } catch {
            #expect(error.description == "TARGET: refused: it has snapshots")
        }
        _ = try volume.admit(4 * MiB, policy())
    }

    @Test func `a snapshot is taken last, and removed after a run that wrote nothing`() throws {
        let volume = try LoopVolume(size: 4 * MiB)
        do {
            let target = try volume.admit(4 * MiB, policy(snapshot: "before"))
            #expect(target.warnings == [])
            #expect(volume.done == ["find", "take before"])
            #expect(target.device.attempt([], .write) == [])
            try target.device.flush()
        }
        #expect(volume.done == ["find", "take before", "remove vg0/before"])
        do {
            let target = try volume.admit(4 * MiB, policy(snapshot: "written"))
            try target.device.zero(ByteRange(offset: 0, length: 4096))
        }
        do {
            let target = try volume.admit(4 * MiB, policy(snapshot: "done"))
            #expect(target.device.release(isComplete: true) == ["an older one stays"])
        }
        #expect(throws: IOError.self) { try volume.admit(4 * MiB, policy(snapshot: "taken")) }
        #expect(
            volume.done.dropFirst(3) == [
                "find", "take written", "find", "take done", "rotate vg0/done", "find",
            ])
    }

    @Test func `a continued run takes no other snapshot, and rotates as if it had`() throws {
        let volume = try LoopVolume(size: 4 * MiB)
        var wish = policy()
        wish.snapshot = TargetSnapshot(name: "day", keeps: 2, taken: "vg0/day-1")
        do { _ = try volume.admit(4 * MiB, wish) }
        #expect(volume.done == ["find"])
        let target = try volume.admit(4 * MiB, wish).device
        #expect(target.snapshot == "vg0/day-1")
        #expect(target.release(isComplete: true) == ["an older one stays"])
        #expect(volume.done == ["find", "find", "rotate vg0/day-1"])
    }

    @Test func `a client that may come back finds its snapshot, and a volume that it has seen`()
        throws
    {
        let volume = try LoopVolume(size: 8 * MiB)
        do {
            let target = try volume.admit(8 * MiB, policy(snapshot: "before"))
            target.device.leave()
        }
        #expect(volume.done == ["find", "take before"])
        for (isRead, isLeft) in [(true, true), (false, true), (true, false)] {
            let count = volume.done.count
            do {
                let target = try volume.admit(5 * MiB, policy(creates: true), target: "vg0/new")
                // What a flush looks at is no client's business.
                try target.device.flush()
                if isRead {
                    let buffer = AlignedBuffer(count: 4096)
                    try target.device.read([Transfer(into: buffer.bytes, at: 0)])
                }
                if isLeft { target.device.leave() }
            }
            let expected = ["create vg0/new"] + (isRead && isLeft ? [] : ["remove"])
            #expect(Array(volume.done[count...]) == expected)
        }
    }

    @Test func `a volume that cannot be resized after all leaves no snapshot`() throws {
        let volume = try LoopVolume(size: 4 * MiB, isStuck: true)
        do {
            let target = try volume.admit(5 * MiB, policy(snapshot: "before"))
            #expect(throws: IOError.self) { try target.device.resize(to: 8 * MiB) }
        }
        #expect(volume.done == ["find", "take before", "resize 8 MiB", "remove vg0/before"])
    }

    @Test func `the snapshot stays if the tail became zeros`() throws {
        let volume = try LoopVolume(size: 8 * MiB)
        do {
            let target = try volume.admit(5 * MiB, policy(snapshot: "before"))
            try target.device.flush()
        }
        #expect(volume.done == ["find", "take before"])
    }

    @Test func `a part of a volume, or a pool, is no target`() throws {
        for suffix in ["-tpool", "-pool", "-real", "-cow"] {
            let volume = try LoopVolume(size: 4 * MiB)
            try volume.describe(suffix: suffix)
            do throws(IOError) {
                _ = try volume.admit(4 * MiB, policy(resizes: false))
                Issue.record("admitted")
            } catch {
                #expect(error.description.contains("part of logical volumes"))
            }
        }
    }

    @Test func `a volume on a pool whose zeroing is unknown is no target`() throws {
        let volume = try LoopVolume(size: 4 * MiB)
        // Like a volume with a classic snapshot: below it is a device that is above the pool.
        try volume.tree.add(
            "dm-7", number: "252:7",
            attributes: [
                "dm/name": "vg0-pool-tpool",
                "dm/uuid": "LVM-" + String(repeating: "p", count: 64) + "-tpool",
            ])
        try volume.tree.add(
            "dm-8", number: "252:8", slaves: ["dm-7"],
            attributes: [
                "dm/name": "vg0-root-real",
                "dm/uuid": "LVM-" + String(repeating: "v", count: 64) + "-real",
            ])
        try volume.describe(on: ["dm-8"])
        do throws(IOError) {
            _ = try volume.admit(4 * MiB, policy(resizes: false))
            Issue.record("admitted")
        } catch {
            #expect(error.description.contains("does not zero new chunks"))
        }
    }

    @Test(arguments: [(2, true), (5, false)])
    func `a classic snapshot that may overflow gives a warning`(mebibytes: Int, isWarned: Bool)
        throws
    {
        let volume = try LoopVolume(size: 4 * MiB)
        func add(
            _ entry: String, _ name: String, _ suffix: String, sectors: Int = 8192,
            slaves: [String] = [], holders: [String] = []
        ) throws {
            let letter = name.contains("mine") ? "m" : "v"
            try volume.tree.add(
                entry, number: "252:\(entry.dropFirst(3))", sectors: sectors, holders: holders,
                slaves: slaves,
                attributes: [
                    "dm/name": name,
                    "dm/uuid": "LVM-" + String(repeating: letter, count: 64) + suffix,
                ])
        }
        try add("dm-5", "vg0-mine", "", slaves: ["dm-6", "dm-8"])
        try add("dm-6", "vg0-mine-cow", "-cow", sectors: mebibytes * 2048, holders: ["dm-5"])
        try add("dm-8", "vg0-root-real", "-real", holders: ["dm-5", "dm-9"])
        try volume.describe(on: ["dm-8"])
        let target = try volume.admit(4 * MiB, policy(resizes: false, isDryRun: true))
        let warning =
            "TARGET: its snapshot vg0/mine is lost if more than its \(mebibytes * MiB) bytes change"
        #expect(target.warnings == (isWarned ? [warning] : []))
    }

    @Test func `only logical volumes have snapshots`() throws {
        let loop = try LoopDevice(size: MiB)
        let no = try refusal(
            loop.path, source: facts(size: MiB), policy: policy(resizes: false, snapshot: "x"))
        #expect(no.cause == .wrongKind)
    }

    @Test func `a missing volume is created, and removed when the run fails`() throws {
        let volume = try LoopVolume(size: 8 * MiB)
        let wish = policy(resizes: false, creates: true, snapshot: "before")
        do {
            // What is left on it is nobody's.
            var careful = wish
            careful.overwrite = false
            try makeExt4(volume.loop.path, uuid: freshUUID())
            let target = try volume.admit(5 * MiB, careful, target: "vg0/new")
            #expect(target.wasCreated && target.sizeBefore == 0 && target.resizeTo == nil)
            #expect(volume.done == ["create vg0/new"])
        }
        #expect(volume.done == ["create vg0/new", "remove"])
        do {
            // The tail is no content: who reads nothing of the source has made nothing.
            let target = try volume.admit(5 * MiB, wish, target: "vg0/new")
            try target.device.flush()
        }
        #expect(volume.done.suffix(2) == ["create vg0/new", "remove"])
        do {
            let target = try volume.admit(5 * MiB, wish, target: "vg0/new")
            try target.device.zero(ByteRange(offset: 0, length: 4096))
        }
        #expect(volume.done.last == "create vg0/new")
        let count = volume.done.count
        var dry = wish
        dry.isDryRun = true
        let target = try volume.admit(5 * MiB, dry, target: "vg0/new@pool")
        #expect(target.wasCreated && target.device.geometry.size == 8 * MiB)
        #expect(volume.done.dropFirst(count) == ["plan vg0/new"])
    }

    @Test func `a name that LVM reserves is refused for a new volume`() throws {
        let volume = try LoopVolume(size: 8 * MiB)
        for name in ["snapshot1", "pvmove0", "x_rimage_0", "pool_tdata"] {
            #expect(throws: IOError.self) {
                try volume.admit(5 * MiB, policy(creates: true), target: "vg0/\(name)")
            }
        }
        #expect(volume.done == [])
    }

    @Test func `a created volume is removed when the gate refuses it`() throws {
        let volume = try LoopVolume(size: 8 * MiB)
        let claim = try BlockSpecialFile(path: volume.path, name: "claim", access: .readWrite)
        #expect(throws: IOError.self) {
            try volume.admit(5 * MiB, policy(creates: true), target: "vg0/new")
        }
        #expect(volume.done == ["create vg0/new", "remove"])
        withExtendedLifetime(claim) {}
    }

    @Test func `--create uses an existing volume, and resizes it as requested`() throws {
        let volume = try LoopVolume(size: 4 * MiB)
        let target = try volume.admit(5 * MiB, policy(resizes: false, creates: true))
        #expect(!target.wasCreated && target.resizeTo == 8 * MiB)
        #expect(volume.done == ["find"])
    }
}
