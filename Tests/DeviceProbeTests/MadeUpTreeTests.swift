// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import Foundation
import LinuxIO
import LogicalVolumes
import TestSupport
import Testing

/// A machine with device-mapper and md devices, which this kernel lacks: a tree of files in the
/// form of /sys, /proc and /dev.
final class MadeUpTree: Sendable {
    let scratch: ScratchDirectory
    var view: SystemView {
        SystemView(
            sys: scratch.file("sys"), proc: scratch.file("proc"), dev: scratch.file("dev"))
    }

    init(mounts: String = "", swaps: String = "") throws {
        scratch = try ScratchDirectory()
        for directory in ["sys/class/block", "sys/devices", "proc/self", "dev/mapper"] {
            try must("mkdir", "-p", scratch.file(directory))
        }
        try write("proc/self/mountinfo", mounts)
        try write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n" + swaps)
    }

    func add(
        _ name: String, number: String, on parent: String = "", sectors: Int = 2048,
        holders: [String] = [], slaves: [String] = [], attributes: [String: String] = [:]
    ) throws {
        let directory = "sys/devices/\(parent.isEmpty ? "" : parent + "/")\(name)"
        var attributes = attributes
        attributes["dev"] = number
        attributes["size"] = "\(sectors)"
        for (file, text) in attributes { try write("\(directory)/\(file)", text + "\n") }
        for (kind, names) in [("holders", holders), ("slaves", slaves)] {
            try must("mkdir", "-p", scratch.file("\(directory)/\(kind)"))
            for other in names { try write("\(directory)/\(kind)/\(other)", "") }
        }
        try must(
            "ln", "-s", scratch.file(directory), scratch.file("sys/class/block/\(name)"))
    }

    /// Gives a real device a place in the tree.
    func add(
        real device: LoopDevice, holders: [String] = [], slaves: [String] = [],
        attributes: [String: String] = [:]
    ) throws {
        let name = String(device.path.dropFirst("/dev/".count))
        let directory = "/sys/class/block/\(name)"
        let number = readSmallFile("\(directory)/dev") ?? ""
        let sectors = readSmallFile("\(directory)/size").flatMap { Int($0) } ?? 0
        try add(
            name, number: number, sectors: sectors, holders: holders, slaves: slaves,
            attributes: attributes)
        try must("cp", "-a", device.path, scratch.file("dev/\(name)"))
    }

    func write(_ path: String, _ text: String) throws {
        let full = scratch.file(path)
        try FileManager.default.createDirectory(
            atPath: (full as NSString).deletingLastPathComponent,
            withIntermediateDirectories: true)
        try text.write(toFile: full, atomically: false, encoding: .utf8)
    }
}

@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct MadeUpTreeTests {
    private static let lvm = [
        "dm/name": "vg0-root",
        "dm/uuid": "LVM-" + String(repeating: "V", count: 32)
            + "abcdefGHIJklmnOPQRstuvWXYZ012345",
    ]

    @Test func `a device below a mounted logical volume is refused with the mount point`() throws {
        let loop = try LoopDevice(size: MiB)
        let tree = try MadeUpTree(
            mounts: "30 1 252:0 / /a\\040place rw - ext4 /dev/mapper/vg0-root rw\n")
        try tree.add(real: loop, holders: ["dm-0"])
        try tree.add("dm-0", number: "252:0", attributes: Self.lvm)
        let no = try refusal(loop.path, source: facts(size: MiB), view: tree.view)
        #expect(no.cause == .inUse)
        #expect(
            no.reason
                == "it is held by device-mapper device vg0-root (dm-0) (mounted on /a place)")
        #expect(no.advice == "Unmount it first: umount /a place")
    }

    @Test func `a loop device that was detached a moment ago causes no refusal`() throws {
        let tree = try MadeUpTree()
        do {
            let loop = try LoopDevice(size: MiB)
            try tree.add(real: loop, attributes: ["loop/backing_file": "/not/there"])
        }
        let image = try tree.scratch.sparseFile("image", size: MiB)
        let admitted = try SafetyGate.admit(
            image, source: facts(size: MiB), policy: GatePolicy(), view: tree.view)
        #expect(admitted.sizeBefore == MiB)
    }

    @Test func `a child between fork and exec is not named, a program that holds the device is`()
        throws
    {
        let loop = try LoopDevice(size: MiB)
        let claim = try BlockSpecialFile(path: loop.path, name: "claim", access: .readWrite)
        defer { withExtendedLifetime(claim) {} }
        let tree = try MadeUpTree()
        try tree.add(real: loop)
        let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        try must("ln", "-s", own, tree.scratch.file("proc/self/exe"))
        // A copy of this process, a child that runs another program, and a copy of it in a stranger's
        // hands.
        for (process, name, parent, program) in [
            (11, "a (copy) 1 1", getpid(), own), (12, "child", getpid(), "/bin/cat"),
            (13, "stranger", 1, own),
        ] {
            try tree.write("proc/\(process)/stat", "\(process) (\(name)) S \(parent) 1 1 0\n")
            try tree.write("proc/\(process)/comm", "\(name)\n")
            try must("mkdir", tree.scratch.file("proc/\(process)/fd"))
            try must("ln", "-s", loop.path, tree.scratch.file("proc/\(process)/fd/3"))
            try must("ln", "-s", program, tree.scratch.file("proc/\(process)/exe"))
        }
        let no = try refusal(loop.path, source: facts(size: MiB), view: tree.view)
        let who = no.reason.split(separator: " ").dropFirst(4).joined(separator: " ")
        #expect(no.reason.hasPrefix("it is claimed by process "), "\(no.reason)")
        #expect(
            ["12 (child), process 13 (stranger)", "13 (stranger), process 12 (child)"]
                .contains(String(who.dropFirst("process ".count))), "\(no.reason)")
    }

    @Test func `swap on a volume on an array is found through both`() throws {
        let loop = try LoopDevice(size: MiB)
        let tree = try MadeUpTree(swaps: "/dev/dm-0\tpartition\t1\t0\t-2\n")
        try tree.add(real: loop, holders: ["md0"])
        try tree.add("md0", number: "9:0", holders: ["dm-0"])
        try tree.add("dm-0", number: "252:0", attributes: Self.lvm)
        let no = try refusal(loop.path, source: facts(size: MiB), view: tree.view)
        #expect(
            no.reason
                == "it is held by md0 (held by device-mapper device vg0-root (dm-0) "
                + "(in use as swap))")
    }

    @Test(arguments: [
        ("proc/self/mountinfo", "30 1 0:99 / /data rw - btrfs NODE rw", "mounted on /data"),
        (
            "proc/self/mountinfo", "30 1 253:9 / /data rw - xfs /dev/none rw,logdev=NODE",
            "mounted on /data"
        ), ("proc/swaps", "Filename\nNODE\tpartition\t1\t0\t-2", "in use as swap"),
    ])
    func `a device in use is found by a path that is no UTF-8`(
        file: String, content: String, use: String
    ) throws {
        let loop = try LoopDevice(size: MiB)
        let tree = try MadeUpTree()
        try tree.add(real: loop)
        let node = "/dev/d$(printf '\\351')"
        try must("sh", "-c", "cp -a \(loop.path) \"\(tree.scratch.path)\(node)\"")
        let text = content.replacingOccurrences(of: "NODE", with: node)
        try must("sh", "-c", "printf '%s\\n' \"\(text)\" > \(tree.scratch.file(file))")
        let no = try refusal(loop.path, source: facts(size: MiB), view: tree.view)
        #expect(no.cause == .inUse && no.reason.contains(use), "\(no.reason)")
    }

    @Test func `an array and its members overlap both ways`() throws {
        let loop = try LoopDevice(size: MiB)
        let name = String(loop.path.dropFirst("/dev/".count))
        let tree = try MadeUpTree()
        // The real device is the array's member in one case, the array in the other.
        try tree.add(real: loop)
        try tree.add("md0", number: "9:0", slaves: [name])
        let array = DeviceIdentity.device(UInt64(9) << 8)
        let no = try refusal(
            loop.path, source: facts(size: MiB, identity: array), view: tree.view)
        #expect(no.cause == .overlap)

        let other = try MadeUpTree()
        try other.add(real: loop, slaves: ["dm-1"])
        try other.add("dm-1", number: "252:1", slaves: ["sdz"])
        try other.add("sdz", number: "65:0")
        let member = DeviceIdentity.device(UInt64(65) << 8)
        let back = try refusal(
            loop.path, source: facts(size: MiB, identity: member), view: other.view)
        #expect(back.cause == .overlap)
    }

    @Test func `two volumes of one group do not overlap`() throws {
        let loop = try LoopDevice(size: MiB)
        let tree = try MadeUpTree()
        try tree.add(real: loop, slaves: ["sdz"])
        try tree.add("dm-1", number: "252:1", slaves: ["sdz"])
        try tree.add("sdz", number: "65:0")
        let sibling = DeviceIdentity.device(UInt64(252) << 8 | 1)
        _ = try SafetyGate.admit(
            loop.path, source: facts(size: MiB, identity: sibling), policy: GatePolicy(),
            view: tree.view)
    }

    @Test func `a volume is found by its UUID with and without dashes`() throws {
        let tree = try MadeUpTree()
        try tree.add("dm-0", number: "252:0", attributes: Self.lvm)
        let dashed = "abcdef-GHIJ-klmn-OPQR-stuv-WXYZ-012345"
        let entries = try inventory(view: tree.view)
        #expect(entries.map(\.lvUUID) == [dashed])
        #expect(
            entries[0].volumeIdentity
                == VolumeIdentity(groupUUID: "VVVVVV-VVVV-VVVV-VVVV-VVVV-VVVV-VVVVVV", uuid: dashed)
        )
        for text in [dashed, "abcdefGHIJklmnOPQRstuvWXYZ012345"] {
            do throws(IOError) {
                _ = try resolve(Selector("LVUUID=\(text)"), view: tree.view)
                Issue.record("resolved")
            } catch {
                // Found, though its device file is not there.
                #expect(error.description.contains("on /dev/dm-0, but there is no such device"))
            }
        }
    }

    @Test func `a gate that cannot see who uses a device refuses it`() throws {
        let loop = try LoopDevice(size: MiB)
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: MiB)
        for view in [SystemView(sys: "/none"), SystemView(proc: "/none")] {
            for path in [loop.path, image, scratch.file("new")] {
                #expect(throws: IOError.self) {
                    try SafetyGate.admit(
                        path, source: facts(size: MiB), policy: GatePolicy(overwrite: true),
                        view: view)
                }
            }
        }
        #expect(fingerprint(scratch.file("new")) == "missing")
    }

    @Test func `a device is rotational when a disk beneath it is`() throws {
        let loop = try LoopDevice(size: MiB)
        for (rotational, expected) in [("1", true), ("0", false)] {
            let tree = try MadeUpTree()
            try tree.add(real: loop, slaves: ["sdz1"])
            try tree.add("sdz", number: "65:0", attributes: ["queue/rotational": rotational])
            try tree.add(
                "sdz1", number: "65:1", on: "sdz",
                attributes: [
                    "uevent": "DEVNAME=sdz1\nDEVTYPE=partition\n", "partition": "1", "start": "0",
                ])
            let source = try openSource(loop.path, view: tree.view)
            #expect(source.isRotational == expected)
        }
    }

    @Test(arguments: ["0", "513", "-512", "\(Int.max)", "18446744073709551615", "x"])
    func `absurd sizes from a driver do not crash the program`(number: String) throws {
        let tree = try MadeUpTree()
        try tree.add(
            "sdy", number: "65:16", sectors: .max, attributes: ["queue/logical_block_size": number])
        try tree.add(
            "sdy1", number: "65:17", on: "sdy", sectors: Int(number) ?? 8,
            attributes: [
                "uevent": "DEVNAME=sdy1\nDEVTYPE=partition\n", "partition": number, "start": number,
            ])
        let entries = try inventory(view: tree.view)
        #expect(!entries.isEmpty && entries.allSatisfy { $0.logicalSector == 512 && $0.size >= 0 })
    }

    @Test func `device names with a slash are restored`() throws {
        let tree = try MadeUpTree()
        try tree.add("cciss!c0d0", number: "104:0")
        try tree.add("loop10", number: "7:10")
        try tree.add("loop2", number: "7:2")
        let paths = try inventory(view: tree.view).map(\.path)
        #expect(paths == ["/dev/cciss/c0d0", "/dev/loop2", "/dev/loop10"])
    }
}
