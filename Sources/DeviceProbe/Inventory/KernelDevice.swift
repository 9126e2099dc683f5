// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Glibc
internal import LinuxIO

/// A block device as sysfs describes it.
///
/// Source: Documentation/ABI/stable/sysfs-block in the kernel. Sizes and starts there are in units
/// of 512 bytes, whatever the logical sector is.
struct KernelDevice: Hashable, Sendable {
    /// The kernel's name, such as `sda1`, `dm-0`, `cciss/c0d0`.
    let name: String
    /// `st_rdev`.
    let number: UInt64
    /// Bytes; 0 without a medium.
    let size: Int
    let path: String
    let isReadOnly: Bool
    /// Bytes.
    let logicalSector: Int
    /// The queue's attribute; see `HostState.isRotational`.
    let isRotational: Bool
    let isVirtio: Bool
    /// The kernel's name of a partition's disk.
    let disk: String?
    let partitionNumber: Int?
    /// A partition's offset on its disk, in bytes.
    let start: Int
    /// Kernel names of the devices that are made of this one (dm, md, bcache).
    let holders: [String]
    /// Kernel names of the devices that this one is made of.
    let slaves: [String]
    /// Name in /dev/mapper of a device-mapper device.
    let mapperName: String?
    /// UUID of a device-mapper device: `LVM-…`, `CRYPT-…`.
    let mapperUUID: String?
    /// Path of an attached loop device's backing file at the time of the attachment.
    ///
    /// Empty if sysfs cannot tell, for example for a path longer than a page.
    let backingPath: KernelPath?
    /// UUID and name of a partition, if the kernel has read them from the table.
    let partUUID: String?
    let partLabel: String?
}

extension KernelDevice {
    /// Reads an entry of /sys/class/block, in which `!` stands for `/`.
    ///
    /// `nil` if it has no device number, such as the hidden paths of NVMe multipath, or has just
    /// disappeared. Attributes that a kind of device cannot have are skipped, because each run
    /// reads all entries twice and some machines have thousands.
    init?(entry: String, view: SystemView) {
        let directory = "\(view.sys)/class/block/\(entry)"
        func text(_ file: String) -> String? { readSmallFile("\(directory)/\(file)") }
        func integer(_ file: String) -> Int? { readInteger("\(directory)/\(file)") }
        guard let number = text("dev").flatMap({ deviceNumber($0) }) else { return nil }
        let link = symbolicLinkTarget(directory) ?? ""
        size = Geometry.bytes(ofSectors: text("size"))
        let isAttached = size > 0
        // Most machines have eight unused loop devices.
        let isIdle = !isAttached && entry.hasPrefix("loop")
        let event = isIdle ? [:] : Self.fields(of: text("uevent") ?? "")
        let isPartition = event["DEVTYPE"] == "partition"
        let isMapped = entry.hasPrefix("dm-")
        let parent = link.split(separator: "/").dropLast().last.map(String.init)
        let disk = isPartition ? parent : nil
        // A partition has no queue of its own.
        let queue = isPartition ? "../queue" : "queue"

        self.number = number
        name = deviceName(entry)
        isReadOnly = isAttached && text("ro") == "1"
        let sector = isAttached ? integer("\(queue)/logical_block_size") : nil
        logicalSector = sector.flatMap { Geometry.isLogicalSector($0) ? $0 : nil } ?? 512
        isRotational = isAttached && text("\(queue)/rotational") == "1"
        isVirtio = link.contains("/virtio")
        self.disk = disk.map(deviceName)
        partitionNumber = isPartition ? integer("partition") : nil
        start = isPartition ? Geometry.bytes(ofSectors: text("start")) : 0
        holders =
            isIdle ? [] : namesInDirectory("\(directory)/holders").map(deviceName)
        slaves =
            isPartition || isIdle
            ? [] : namesInDirectory("\(directory)/slaves").map(deviceName)
        mapperName = isMapped ? text("dm/name") : nil
        mapperUUID = isMapped ? text("dm/uuid") : nil
        let isLoop =
            entry.hasPrefix("loop") && !isPartition && FileStatus.exists("\(directory)/loop")
        backingPath =
            isLoop ? KernelPath(inFile: "\(directory)/loop/backing_file") ?? KernelPath("") : nil
        partUUID = event["PARTUUID"]
        partLabel = event["PARTNAME"]

        let node = "/dev/\(event["DEVNAME"] ?? name)"
        let mapped = mapperName.map { "/dev/mapper/\($0)" }
        path = mapped.flatMap { view.deviceNumber(at: $0) == number ? $0 : nil } ?? node
    }

    /// Reads an attribute, such as `loop/offset`; `nil` if the device lacks it.
    func attribute(_ attribute: String, in view: SystemView) -> String? {
        let entry = name.replacing("/", with: "!")
        return readSmallFile("\(view.sys)/class/block/\(entry)/\(attribute)")
    }

    private static func fields(of event: String) -> [String: String] {
        var fields: [String: String] = [:]
        for line in event.split(separator: "\n") {
            // As characters, a combining mark at the start of a label would hide the sign.
            guard let equals = line.utf8.firstIndex(of: UInt8(ascii: "=")) else { continue }
            fields[String(line[..<equals])] = String(line[line.utf8.index(after: equals)...])
        }
        return fields
    }

    var asPartition: Partition {
        Partition(
            number: partitionNumber ?? 0, range: ByteRange(offset: start, length: size), type: "",
            name: partLabel, uuid: partUUID)
    }

    var displayName: String {
        if let mapperName { return "\(mapperName) (\(name))" }
        return name
    }
}

/// Compares digits as numbers: `loop2` comes before `loop10`.
func naturallyPrecedes(_ first: String, _ second: String) -> Bool {
    let (one, two) = (naturalParts(first), naturalParts(second))
    for (left, right) in zip(one, two) where left != right {
        if let left = Int(left), let right = Int(right), left != right { return left < right }
        return left < right
    }
    return one.count < two.count
}

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
