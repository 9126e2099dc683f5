// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import LinuxIO
import TestSupport
import Testing

struct SelectorSyntaxTests {
    @Test func `only a known tag before the equals sign makes a selector a tag`() {
        #expect(Selector("UUID=ab=c") == .tag(.uuid, "ab=c"))
        #expect(Selector("PARTLABEL=a b") == .tag(.partLabel, "a b"))
        #expect(Selector("./UUID=x") == .path("./UUID=x"))
        #expect(Selector("uuid=x") == .path("uuid=x"))
        #expect(Selector("/dev/sda") == .path("/dev/sda"))
        #expect(Selector("LABEL=\u{301}x") == .tag(.label, "\u{301}x"))
    }

    @Test(arguments: ["UUID=ab=c", "LABEL=\u{301}x", "LABEL=", "./UUID=x", "vg0/new@pool", ""])
    func `a selector is printed as it was read`(text: String) {
        #expect(Array(Selector(text).description.utf8) == Array(text.utf8))
    }

    @Test func `a tag in another Unicode form is another tag`() {
        let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}")
        for text in ["/srv/", "LABEL=", "PARTLABEL="] {
            #expect(Selector(text + composed) == Selector(text + composed))
            #expect(Selector(text + composed) != Selector(text + decomposed))
        }
        var device = DeviceDescription(unreadableImage: "/srv/a.img", reason: "made up")
        device.entry.partLabel = composed
        device.hardwareName = "SERIAL=\(composed)"
        for tag in ["PARTLABEL", "SERIAL"] {
            #expect(device.hasTag("\(tag)=\(composed)"))
            #expect(!device.hasTag("\(tag)=\(decomposed)"))
        }
    }
}

@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct SelectorTests {
    @Test func `a file system is found by its UUID in any case and by its exact label`() throws {
        let loop = try LoopDevice(size: 16 * MiB)
        let uuid = freshUUID()
        let label = "L" + uuid.prefix(12)
        try makeExt4(loop.path, uuid: uuid, label: label)
        #expect(try resolve(Selector("UUID=\(uuid.uppercased())")) == loop.path)
        #expect(try resolve(Selector("LABEL=\(label)")) == loop.path)
        #expect(throws: IOError.self) { try resolve(Selector("LABEL=\(label.lowercased())")) }
    }

    @Test func `a label in another Unicode form finds only its own device`() throws {
        let (one, two) = (try LoopDevice(size: 16 * MiB), try LoopDevice(size: 16 * MiB))
        // ext4 has 16 bytes for a label.
        let end = freshUUID().prefix(8)
        let labels = ["caf\u{e9}\(end)", "cafe\u{301}\(end)"]
        try makeExt4(one.path, uuid: freshUUID(), label: labels[0])
        #expect(throws: IOError.self) { try resolve(Selector("LABEL=\(labels[1])")) }
        try makeExt4(two.path, uuid: freshUUID(), label: labels[1])
        #expect(try resolve(Selector("LABEL=\(labels[0])")) == one.path)
        #expect(try resolve(Selector("LABEL=\(labels[1])")) == two.path)
    }

    @Test func `a partition is found by the table of its disk`() throws {
        let disk = try PartitionedDisk()
        let name = "part \(freshUUID().prefix(20))"
        let uuid = freshUUID()
        try must("sgdisk", "-c", "2:\(name)", "-u", "2:\(uuid)", disk.path)
        // sgdisk has the kernel read the table again, which finds none. The kernel keeps the old
        // partitions where another process has one of them open.
        try must("partx", "--update", disk.path)
        #expect(try resolve(Selector("PARTUUID=\(uuid)")) == disk.second)
        #expect(try resolve(Selector("PARTLABEL=\(name)")) == disk.second)
    }

    @Test func `a tag that matches several devices is refused with their list`() throws {
        let one = try LoopDevice(size: 16 * MiB)
        let uuid = freshUUID()
        try makeExt4(one.path, uuid: uuid)
        let two = try LoopDevice(size: 32 * MiB)
        try must("dd", "if=\(one.path)", "of=\(two.path)", "bs=1M", "status=none")
        let mounted = try Mounted(two.path)
        do throws(IOError) {
            _ = try resolve(Selector("UUID=\(uuid)"))
            Issue.record("resolved")
        } catch {
            #expect(error.cause == .ambiguousSelector)
            #expect(error.object == "UUID=\(uuid)")
            #expect(error.reason.contains("\(one.path) (16777216 bytes)"))
            #expect(
                error.reason.contains("\(two.path) (33554432 bytes, mounted on \(mounted.point))"))
        }
    }

    @Test func `the error names a tag that matches no device`() throws {
        let text = "UUID=\(freshUUID())"
        do throws(IOError) {
            _ = try resolve(Selector(text))
            Issue.record("resolved")
        } catch {
            #expect(error.description.hasPrefix("\(text): find device: no device"))
        }
    }

    @Test(.noSilentDisk) func `a selector names a source and a target`() throws {
        let loop = try LoopDevice(size: 16 * MiB)
        let uuid = freshUUID()
        try makeExt4(loop.path, uuid: uuid)
        let source = try openSource("UUID=\(uuid)")
        #expect(source.facts.name == "UUID=\(uuid)")
        #expect(source.device.name == "UUID=\(uuid)")
        do throws(IOError) {
            _ = try SafetyGate.admit(
                "UUID=\(uuid)", source: source.facts, policy: GatePolicy(overwrite: true))
            Issue.record("admitted")
        } catch {
            #expect(error.description == "UUID=\(uuid): refused: it is the source, UUID=\(uuid)")
        }
    }
}

@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct InventoryTests {
    @Test func `every device with a size is listed in natural order`() throws {
        let disk = try PartitionedDisk()
        try makeExt4(disk.second, uuid: freshUUID(), label: "inside")
        let mounted = try Mounted(disk.second)
        let entries = try inventory()
        let paths = entries.map(\.path)
        let index = try #require(paths.firstIndex(of: disk.path))
        #expect(Array(paths[index...].prefix(3)) == [disk.path, disk.first, disk.second])
        #expect(entries.allSatisfy { $0.size > 0 })
        let root = try FileStatus(path: "/").fileSystem
        if let disk = entries.first(where: { $0.number == root }) {
            #expect(disk.inUseBy.contains { $0.hasPrefix("mounted on /") })
        }

        let (whole, first, second) = (entries[index], entries[index + 1], entries[index + 2])
        #expect(whole.content?.main?.type == "gpt")
        let name = disk.second.dropFirst("/dev/".count)
        #expect(whole.inUseBy == ["partition \(name) mounted on \(mounted.point)"])
        #expect(first.content == .empty)
        #expect(first.partLabel == "first")
        #expect(first.partUUID != nil)
        #expect(second.content?.main?.label == "inside")
        #expect(second.inUseBy == ["mounted on \(mounted.point)"])
        #expect(second.size == 16 * MiB)
        #expect(second.unreadable == nil)
    }

    @Test func `the entry of a device that cannot be read says so`() throws {
        let loop = try LoopDevice(size: 4 * MiB)
        try must("truncate", "-s", "0", loop.backingFile)
        let entry = try #require(try inventory().first { $0.path == loop.path })
        #expect(entry.content == nil)
        #expect(entry.unreadable == "Input/output error")
    }

    @Test func `the logical sector size is the device's`() throws {
        let loop = try LoopDevice(size: 4 * MiB, sectorSize: 4096)
        let entry = try #require(try inventory().first { $0.path == loop.path })
        #expect(entry.logicalSector == 4096)
        #expect(!entry.isReadOnly)
    }
}

struct InventoryWithoutRootTests {
    @Test(.enabled(if: !isRoot, "root reads every device"))
    func `devices that cannot be read are listed with the reason`() throws {
        let entries = try inventory()
        #expect(entries.allSatisfy { $0.size > 0 })
        for entry in entries where entry.content == nil {
            #expect(entry.unreadable == "Permission denied")
        }
    }
}
