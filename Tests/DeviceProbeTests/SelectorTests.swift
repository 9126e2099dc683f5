// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import LinuxIO
import TestSupport
import Testing

struct SelectorSyntaxTests {
    @Test func onlyAKnownTagMakesATag() {
        #expect(Selector("UUID=ab=c") == .tag(.uuid, "ab=c"))
        #expect(Selector("PARTLABEL=a b") == .tag(.partLabel, "a b"))
        #expect(Selector("./UUID=x") == .path("./UUID=x"))
        #expect(Selector("uuid=x") == .path("uuid=x"))
        #expect(Selector("/dev/sda") == .path("/dev/sda"))
    }
}

@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(30)))
struct SelectorTests {
    @Test func aFileSystemIsFoundByUUIDInAnyCaseAndByExactLabel() throws {
        let loop = try LoopDevice(size: 16 * MiB)
        let uuid = freshUUID()
        let label = "L" + uuid.prefix(12)
        try makeExt4(loop.path, uuid: uuid, label: label)
        #expect(try resolve(Selector("UUID=\(uuid.uppercased())")) == loop.path)
        #expect(try resolve(Selector("LABEL=\(label)")) == loop.path)
        #expect(throws: ProbeError.self) { try resolve(Selector("LABEL=\(label.lowercased())")) }
    }

    @Test func aPartitionIsFoundByTheTableOfItsDisk() throws {
        let disk = try PartitionedDisk()
        let name = "part \(freshUUID().prefix(20))"
        let uuid = freshUUID()
        try must("sgdisk", "-c", "2:\(name)", "-u", "2:\(uuid)", disk.path)
        // sgdisk has the kernel read the table again, which finds none.
        try must("partx", "-a", disk.path)
        #expect(try resolve(Selector("PARTUUID=\(uuid)")) == disk.second)
        #expect(try resolve(Selector("PARTLABEL=\(name)")) == disk.second)
    }

    @Test func severalMatchesAreRefusedWithTheirList() throws {
        let one = try LoopDevice(size: 16 * MiB)
        let uuid = freshUUID()
        try makeExt4(one.path, uuid: uuid)
        let two = try LoopDevice(size: 32 * MiB)
        try must("dd", "if=\(one.path)", "of=\(two.path)", "bs=1M", "status=none")
        let mounted = try Mounted(two.path)
        do throws(ProbeError) {
            _ = try resolve(Selector("UUID=\(uuid)"))
            Issue.record("resolved")
        } catch {
            guard case .refused(let no) = error else { throw error }
            #expect(no.cause == .ambiguousSelector)
            #expect(no.object == "UUID=\(uuid)")
            #expect(no.reason.contains("\(one.path) (16777216 bytes)"))
            #expect(
                no.reason.contains("\(two.path) (33554432 bytes, mounted on \(mounted.point))"))
        }
    }

    @Test func noMatchSaysSo() throws {
        let text = "UUID=\(freshUUID())"
        do throws(ProbeError) {
            _ = try resolve(Selector(text))
            Issue.record("resolved")
        } catch {
            guard case .failed(let failure) = error else { throw error }
            #expect(failure.description.hasPrefix("\(text): find device: no device"))
        }
    }

    @Test func aSelectorNamesSourceAndTarget() throws {
        let loop = try LoopDevice(size: 16 * MiB)
        let uuid = freshUUID()
        try makeExt4(loop.path, uuid: uuid)
        let source = try openSource("UUID=\(uuid)")
        #expect(source.facts.name == "UUID=\(uuid)")
        #expect(source.device.name == "UUID=\(uuid)")
        do throws(ProbeError) {
            _ = try SafetyGate.admit(
                "UUID=\(uuid)", source: source.facts, policy: GatePolicy(overwrite: true))
            Issue.record("admitted")
        } catch {
            #expect(error.description == "UUID=\(uuid): refused: it is the source, UUID=\(uuid)")
        }
    }
}

@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(30)))
struct InventoryTests {
    @Test func everyDeviceWithASizeIsListedInNaturalOrder() throws {
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

    @Test func aDeviceThatCannotBeReadIsAnEntryThatSaysSo() throws {
        let loop = try LoopDevice(size: 4 * MiB)
        try must("truncate", "-s", "0", loop.backingFile)
        let entry = try #require(try inventory().first { $0.path == loop.path })
        #expect(entry.content == nil)
        #expect(entry.unreadable == "Input/output error")
    }

    @Test func theLogicalSectorIsTheDevices() throws {
        let loop = try LoopDevice(size: 4 * MiB, sectorSize: 4096)
        let entry = try #require(try inventory().first { $0.path == loop.path })
        #expect(entry.logicalSector == 4096)
        #expect(!entry.isReadOnly)
    }
}

struct InventoryWithoutRootTests {
    @Test(.enabled(if: !isRoot, "root reads every device"))
    func devicesAreListedAndSayWhyTheyCannotBeRead() throws {
        let entries = try inventory()
        #expect(entries.allSatisfy { $0.size > 0 })
        for entry in entries where entry.content == nil {
            #expect(entry.unreadable == "Permission denied")
        }
    }
}
