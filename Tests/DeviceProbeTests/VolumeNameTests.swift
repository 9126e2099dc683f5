// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import LinuxIO
import LogicalVolumes
import TestSupport
import Testing

@testable import DeviceProbe

@Suite struct AmbiguousPathTests {
    @Test(
        arguments: [
            ("vg0/root", "vg0", "root"), ("vg0/root@pool", "vg0", "root"), ("vg0/-n", "vg0", "-n"),
            ("dev/sda", "dev", "sda"), ("a@b/c@d@e", "a@b", "c"),
        ])
    func `a relative path of two words may name a volume, maybe with a pool`(
        text: String, group: String, volume: String
    ) {
        #expect(AmbiguousPath(Selector(text))?.volume == VolumeName(group: group, volume: volume))
    }

    @Test(arguments: [".a/b", "./vg0/root", "/dev/vg0/root", "root", "vg0/", "a/b/c", "UUID=1/2"])
    func `any other path, and a tag, names no volume`(text: String) {
        #expect(AmbiguousPath(Selector(text))?.text == nil)
    }
}

/// Makes a script in place of lvm(8), which reports these groups and volumes.
private func scriptedLVM(
    in tree: MadeUpTree, groups: [String] = [], volumes: [[String: String]] = []
) throws -> String {
    let path = tree.scratch.file("lvm")
    func report(_ kind: String, _ rows: [[String: String]]) throws -> String {
        let report = try JSONSerialization.data(withJSONObject: ["report": [[kind: rows]]])
        return "echo '\(String(decoding: report, as: UTF8.self))'"
    }
    try must(
        "sh", "-c", "cat >\"$0\" && chmod +x \"$0\"", path,
        input: """
            #!/bin/sh
            case "$1" in
                vgs) \(try report("vg", groups.map { ["vg_name": $0] })) ;;
                lvs) \(try report("lv", volumes)) ;;
                *) exit 5 ;;
            esac

            """)
    return path
}

/// A row of lvs's report, as far as names are asked for.
private func row(
    _ groupUUID: String, _ uuid: String, _ group: String, _ name: String, origin: String = ""
) -> [String: String] {
    ["vg_uuid": groupUUID, "lv_uuid": uuid, "vg_name": group, "lv_name": name, "origin": origin]
}

/// Relative paths that LVM's programs would take for volumes.
@Suite(.enabled(if: isRoot, "LVM is asked by root"), .blocking) struct DoubtfulNameTests {
    /// What the gate says of a target that is not there.
    private func answer(
        _ name: String, creates: Bool = false, asking: Bool = true
    ) throws -> IOError? {
        let tree = try MadeUpTree()
        try tree.add("sdz", number: "65:0")
        var view = tree.view
        view.lvm =
            try asking
            ? scriptedLVM(
                in: tree, groups: ["no-such-group", "no-other"],
                volumes: [row("G", "U", "no-such-group", "idle")])
            : "/none"
        var policy = GatePolicy()
        policy.creates = creates
        do throws(IOError) {
            _ = try SafetyGate.admit(name, source: facts(size: MiB), policy: policy, view: view)
            return nil
        } catch { return error }
    }

    @Test(arguments: ["b", "idle", "b@pool", "-n"])
    func `no file is created under a path that may name a volume`(name: String) throws {
        let text = "no-such-group/\(name)"
        let no = try #require(try answer(text))
        #expect(no.cause == .ambiguousSelector && no.object == text)
        #expect(no.reason == "it is no active logical volume")
        #expect(no.advice?.hasSuffix("or the file write ./\(text).") == true)
        #expect(no.advice?.contains("lvchange") == (name == "idle"))
    }

    @Test(arguments: ["exec sleep 1000", "echo 'log: a line'; echo '{ \"report\": [] }'"])
    func `a path that may name a volume is refused if LVM does not answer in time or in JSON`(
        script: String
    ) throws {
        let tree = try MadeUpTree()
        try tree.add("sdz", number: "65:0")
        var view = tree.view
        view.lvm = tree.scratch.file("lvm")
        try must(
            "sh", "-c", "cat >\"$0\" && chmod +x \"$0\"", view.lvm,
            input: "#!/bin/sh\n\(script)\n")
        do throws(IOError) {
            _ = try SafetyGate.admit(
                "no-such-group/b", source: facts(size: MiB), policy: GatePolicy(), view: view)
            Issue.record("admitted")
        } catch {
            #expect(
                error.description
                    == "no-such-group/b: refused: LVM does not answer whether it is a logical volume"
            )
            #expect(error.advice == "For the file write ./no-such-group/b.")
        }
    }

    @Test(arguments: ["no-group/b", "./no-such-group/b", "no-such-group/a/b", "/no-such-group/b"])
    func `other paths are files, and so are all paths if LVM cannot be asked`(name: String) throws {
        #expect(try answer(name)?.description.contains("parent directory") == true)
        #expect(
            try answer("no-such-group/b", asking: false)?.description.contains("parent directory")
                == true)
    }

    @Test(arguments: ["no-such-group/-n", "no-such-group/b@-pool", "no-group/a b"])
    func `an impossible volume name does not become a file`(name: String) throws {
        #expect(
            try answer(name, creates: true)?.description
                == "\(name): create: no logical volume can have that name")
    }
}

/// A source that is read through a snapshot, and its origin.
@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct OriginOfSourceTests {
    private static func uuid(_ digit: String) -> String {
        [6, 4, 4, 4, 4, 4, 6].map { String(repeating: digit, count: $0) }.joined(separator: "-")
    }

    @Test func `an image in the file system of the origin is refused, whether it exists or not`()
        throws
    {
        let loop = try LoopDevice(size: 32 * MiB)
        try makeExt4(loop.path, uuid: freshUUID())
        let mounted = try Mounted(loop.path)
        let elsewhere = try ScratchDirectory()
        let tree = try MadeUpTree(mounts: readSmallFile("/proc/self/mountinfo") ?? "")
        let number = try FileStatus(path: loop.path).device
        func add(_ entry: String, _ number: String, _ name: String, _ digit: String) throws {
            let uuid = String(repeating: "V", count: 32) + String(repeating: digit, count: 32)
            try tree.add(
                entry, number: number, attributes: ["dm/name": name, "dm/uuid": "LVM-\(uuid)"])
        }
        try add("dm-1", "\(number >> 8 & 0xFFF):\(number & 0xFF)", "vg0-o", "1")
        try add("dm-2", "252:2", "vg0-o.blkferry.20261123T031500.1234", "2")
        try add("dm-3", "252:3", "vg0-o.mine", "3")
        let origin = VolumeIdentity(groupUUID: Self.uuid("V"), uuid: Self.uuid("1"))
        func refusal(_ target: String) -> String? {
            do throws(IOError) {
                try SafetyGate.refuse(
                    Selector(target), on: origin, called: "vg0/o", view: tree.view)
                return nil
            } catch { return error.description }
        }
        func gateSays(_ target: String, minor: UInt64) -> String? {
            do throws(IOError) {
                _ = try SafetyGate.admit(
                    target,
                    source: facts(size: MiB, identity: .device(UInt64(252) << 8 | minor)),
                    policy: GatePolicy(isDryRun: true), view: tree.view)
                return nil
            } catch { return error.description }
        }
        let image = "\(mounted.point)/image"
        for exists in [false, true] {
            if exists { try must("truncate", "-s", "1M", image) }
            #expect(refusal(image) == "\(image): refused: it lies on the source, vg0/o")
            #expect(
                gateSays(image, minor: 2)
                    == "\(image): refused: it lies on vg0/o, and the source, SOURCE, is a snapshot "
                    + "of vg0/o"
            )
            #expect(gateSays(image, minor: 3) == nil)
        }
        #expect(refusal(loop.path) == "\(loop.path): refused: it is the source, vg0/o")
        #expect(refusal(elsewhere.file("image")) == nil)
        #expect(gateSays(elsewhere.file("image"), minor: 2) == nil)
        #expect(refusal("/no/such/place") == nil)
    }
}

/// Several devices with one file system, as an origin and its snapshots are.
@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct SharedTagTests {
    private static let group = String(repeating: "V", count: 32)

    /// Adds a copy of a device as a logical volume.
    private func add(
        _ name: String, like device: LoopDevice, number: Int, to tree: MadeUpTree,
        holders: [String] = []
    ) throws {
        let entry = "/sys/class/block/\(device.path.dropFirst("/dev/".count))"
        let uuid = String("\(number)".first ?? "0")
        try tree.add(
            "dm-\(number)", number: readSmallFile("\(entry)/dev") ?? "", sectors: 16 * MiB / 512,
            holders: holders,
            attributes: [
                "dm/name": name,
                "dm/uuid": "LVM-" + Self.group + String(repeating: uuid, count: 32),
            ])
        try must("cp", "-a", device.path, tree.scratch.file("dev/mapper/\(name)"))
    }

    @Test func `a tag means neither a base of a refresh nor an image of a mirror`() throws {
        let one = try LoopDevice(size: 16 * MiB)
        let uuid = freshUUID()
        try makeExt4(one.path, uuid: uuid)
        let base = try LoopDevice(size: 16 * MiB)
        let image = try LoopDevice(size: 16 * MiB)
        for copy in [base, image] {
            try must("dd", "if=\(one.path)", "of=\(copy.path)", "bs=1M", "status=none")
        }
        let tree = try MadeUpTree()
        try add("vg0-o", like: one, number: 1, to: tree)
        let name = "vg0-o.blkferry.20261123T031500.1234"
        try add(name, like: base, number: 2, to: tree)
        try add("vg0-o_rimage_0", like: image, number: 3, to: tree, holders: ["dm-1"])
        #expect(try resolve(Selector("UUID=\(uuid)"), view: tree.view) == "/dev/mapper/vg0-o")
        // By its own names the base can be had.
        let own = String(repeating: "2", count: 32)
        let path = "/dev/mapper/\(name)"
        #expect(try resolve(Selector("LVUUID=\(own)"), view: tree.view) == path)
        #expect(
            try resolve(Selector("vg0/o.blkferry.20261123T031500.1234"), view: tree.view) == path)
        let part = String(repeating: "3", count: 32)
        #expect(throws: IOError.self) {
            try resolve(Selector("LVUUID=\(part)"), view: tree.view)
        }
    }

    @Test func `the refusal of an ambiguous tag says whose snapshots the volumes are`() throws {
        let one = try LoopDevice(size: 16 * MiB)
        let uuid = freshUUID()
        try makeExt4(one.path, uuid: uuid)
        let two = try LoopDevice(size: 16 * MiB)
        try must("dd", "if=\(one.path)", "of=\(two.path)", "bs=1M", "status=none")
        let tree = try MadeUpTree()
        try add("vg0-o", like: one, number: 1, to: tree)
        try add("vg0-o--snap", like: two, number: 2, to: tree)
        func reason(_ lvm: String) throws -> String {
            var view = tree.view
            view.lvm = lvm
            do throws(IOError) {
                _ = try resolve(Selector("UUID=\(uuid)"), view: view)
            } catch {
                #expect(error.cause == .ambiguousSelector)
                return error.reason
            }
            throw CancellationError()
        }
        func dashed(_ digit: String) -> String {
            [6, 4, 4, 4, 4, 4, 6].map { String(repeating: digit, count: $0) }
                .joined(separator: "-")
        }
        let lvm = try scriptedLVM(
            in: tree,
            volumes: [
                row(dashed("V"), dashed("1"), "vg0", "o"),
                row(dashed("V"), dashed("2"), "vg0", "o-snap", origin: "[o]"),
            ])
        #expect(
            try reason(lvm)
                == "2 devices have it: vg0/o (16777216 bytes); "
                + "vg0/o-snap, a snapshot of vg0/o (16777216 bytes)")
        #expect(
            try reason("/none")
                == "2 devices have it: vg0/o (16777216 bytes); vg0/o-snap (16777216 bytes)")
    }

    @Test func `the refusal of a tag that only a base of blkferry has says so`() throws {
        let base = try LoopDevice(size: 16 * MiB)
        let uuid = freshUUID()
        try makeExt4(base.path, uuid: uuid)
        let tree = try MadeUpTree()
        try add("vg0-o.blkferry.20261123T031500.1234", like: base, number: 2, to: tree)
        do throws(IOError) {
            _ = try resolve(Selector("UUID=\(uuid)"), view: tree.view)
            Issue.record("resolved")
        } catch {
            #expect(error.description.contains("only a snapshot that blkferry has taken has it"))
        }
    }
}
