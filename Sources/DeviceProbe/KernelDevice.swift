// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Glibc
internal import LinuxIO

/// A block device as sysfs describes it.
///
/// Source: Documentation/ABI/stable/sysfs-block in the kernel; sizes and starts are there in units
/// of 512 bytes whatever the logical sector is.
struct KernelDevice: Hashable, Sendable {
    /// The kernel's name, such as `sda1`, `dm-0`, `cciss/c0d0`.
    let name: String
    /// Its number (`st_rdev`).
    let number: UInt64
    /// Bytes; 0 without a medium.
    let size: Int
    /// Its device file.
    let path: String
    let isReadOnly: Bool
    /// Bytes.
    let logicalSector: Int
    /// What the queue says; see `HostState.isRotational`.
    let isRotational: Bool
    /// Whether the disk is one of the hypervisor's.
    let isVirtio: Bool
    /// For a partition: the kernel's name of its disk.
    let disk: String?
    /// For a partition: its number in the table.
    let partitionNumber: Int?
    /// For a partition: bytes from the start of its disk.
    let start: Int
    /// Kernel names of the devices that are made of this one (dm, md, bcache).
    let holders: [String]
    /// Kernel names of the devices that this one is made of.
    let slaves: [String]
    /// For a device-mapper device: the name in /dev/mapper.
    let mapperName: String?
    /// For a device-mapper device: `LVM-…`, `CRYPT-…`.
    let mapperUUID: String?
    /// For an attached loop device: the path of what it stands on, when it was attached; empty
    /// where sysfs cannot tell, such as for a path longer than a page.
    let backingPath: String?
    /// Where the kernel itself has read the partition table: the partition's UUID and name.
    let partUUID: String?
    let partLabel: String?
}

extension KernelDevice {
    /// Reads one entry of /sys/class/block.
    ///
    /// `nil` for what has no device number, such as the hidden paths of NVMe multipath, or has just
    /// gone. What a kind of device cannot have is not looked for: machines with thousands of devices
    /// are read twice in each run.
    ///
    /// - Parameters:
    ///   - entry: its name there, `!` for `/`.
    ///   - view: where sysfs is.
    init?(entry: String, view: SystemView) {
        let directory = "\(view.sys)/class/block/\(entry)"
        func text(_ file: String) -> String? { readSmallFile("\(directory)/\(file)") }
        guard let number = text("dev").flatMap({ deviceNumber($0) }) else { return nil }
        let link = symbolicLinkTarget(directory) ?? ""
        size = (text("size").flatMap { Int($0) } ?? 0) * 512
        let isAttached = size > 0
        // Most machines have eight loop devices that nothing is attached to.
        let isIdle = !isAttached && entry.hasPrefix("loop")
        let event = isIdle ? [:] : Self.fields(of: text("uevent") ?? "")
        let isPartition = event["DEVTYPE"] == "partition"
        let isMapped = entry.hasPrefix("dm-")
        let parent = link.split(separator: "/").dropLast().last.map(String.init)
        let disk = isPartition ? parent : nil
        // A partition has no queue of its own.
        let queue = isPartition ? "../queue" : "queue"

        self.number = number
        name = Self.deviceName(entry)
        isReadOnly = isAttached && text("ro") == "1"
        logicalSector =
            isAttached ? text("\(queue)/logical_block_size").flatMap { Int($0) } ?? 512 : 512
        isRotational = isAttached && text("\(queue)/rotational") == "1"
        isVirtio = link.contains("/virtio")
        self.disk = disk.map(Self.deviceName)
        partitionNumber = isPartition ? text("partition").flatMap { Int($0) } : nil
        start = isPartition ? (text("start").flatMap { Int($0) } ?? 0) * 512 : 0
        holders =
            isIdle ? [] : namesInDirectory("\(directory)/holders").map(Self.deviceName)
        slaves =
            isPartition || isIdle
            ? [] : namesInDirectory("\(directory)/slaves").map(Self.deviceName)
        mapperName = isMapped ? text("dm/name") : nil
        mapperUUID = isMapped ? text("dm/uuid") : nil
        let isLoop =
            entry.hasPrefix("loop") && !isPartition && FileStatus.exists("\(directory)/loop")
        backingPath = isLoop ? text("loop/backing_file") ?? "" : nil
        partUUID = event["PARTUUID"]
        partLabel = event["PARTNAME"]

        let node = "/dev/\(event["DEVNAME"] ?? name)"
        let mapped = mapperName.map { "/dev/mapper/\($0)" }
        path = mapped.flatMap { view.deviceNumber(at: $0) == number ? $0 : nil } ?? node
    }

    /// A name with `/` where sysfs, which cannot have it, writes `!`.
    static func deviceName(_ entry: String) -> String {
        String(entry.map { $0 == "!" ? "/" : $0 })
    }

    /// The lines `KEY=value` of a uevent file.
    private static func fields(of event: String) -> [String: String] {
        var fields: [String: String] = [:]
        for line in event.split(separator: "\n") {
            guard let equals = line.firstIndex(of: "=") else { continue }
            fields[String(line[..<equals])] = String(line[line.index(after: equals)...])
        }
        return fields
    }

    /// What a partition table says of it.
    var asPartition: Partition {
        Partition(
            number: partitionNumber ?? 0, range: ByteRange(offset: start, length: size), type: "",
            name: partLabel, uuid: partUUID)
    }

    /// For messages: what people call it.
    var displayName: String {
        if let mapperName { return "\(mapperName) (\(name))" }
        return name
    }
}

/// Orders names as people do: `loop2` before `loop10`.
func naturallyPrecedes(_ first: String, _ second: String) -> Bool {
    let (one, two) = (naturalParts(first), naturalParts(second))
    for (left, right) in zip(one, two) where left != right {
        if let left = Int(left), let right = Int(right), left != right { return left < right }
        return left < right
    }
    return one.count < two.count
}

/// The runs of digits and of other characters that a name consists of.
private func naturalParts(_ name: String) -> [String] {
    var parts: [String] = []
    var lastWasDigit: Bool?
    for character in name {
        let isDigit = character.isASCII && character.isNumber
        if isDigit == lastWasDigit {
            parts[parts.count - 1].append(character)
        } else {
            parts.append(String(character))
        }
        lastWasDigit = isDigit
    }
    return parts
}
