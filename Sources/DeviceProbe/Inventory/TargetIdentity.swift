// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import LinuxIO
internal import SystemPackage

/// Distinguishes a device or an image from every other one, also after a restart of the machine.
///
/// Nothing of it is read from the content, which a run changes, except the partition table of the
/// disk that a partition is on.
package struct TargetIdentity: Codable, Hashable, Sendable {
    /// `LVUUID=…`, `WWN=…`, `PARTUUID=…` and others.
    package var facts: [String]
    /// Whether no other device can have these facts.
    package var isUnique: Bool
    /// The number of the disk (`diskseq`), or the inode of an image; `nil` if unknown.
    package var attachment: Int?
    /// `st_rdev`, or `st_dev` of an image.
    package var number: UInt64
    /// The kernel's boot identifier; `nil` if unknown.
    package var boot: String?

    package enum Relation: Hashable, Sendable {
        case same
        case other
        /// Nothing proves that it is the same, as after a restart for a disk without a number.
        case unknown
    }

    package init(facts: [String], isUnique: Bool, number: UInt64) {
        self.facts = facts
        self.isUnique = isUnique
        self.number = number
    }

    /// Whether it is an image itself, and not a loop device over one.
    private var isImage: Bool { isOverImage && !facts.contains { $0.hasPrefix("OFFSET=") } }

    private var isOverImage: Bool { facts.first?.hasPrefix("INODE=") == true }

    /// What has the same bytes under another name: of an image the loop device over all of it, and
    /// of such a loop device, also one over a part, and of its partitions, the image.
    ///
    /// They are good for their facts only.
    package var aliases: [TargetIdentity] {
        guard isOverImage else { return [] }
        var other = self
        if let place = facts.firstIndex(where: { $0.hasPrefix("OFFSET=") }) {
            other.facts = Array(facts[..<place])
        } else {
            other.facts.append("OFFSET=0")
        }
        return [other]
    }

    package func relation(to other: TargetIdentity) -> Relation {
        guard facts == other.facts else { return .other }
        // A snapshot of btrfs has files with the inode and the birth time of the original.
        if isImage, boot != nil, boot == other.boot, number != other.number { return .unknown }
        if isUnique { return .same }
        guard let boot, boot == other.boot else { return .unknown }
        guard number == other.number, attachment == other.attachment else { return .other }
        return attachment == nil ? .unknown : .same
    }
}

extension TargetIdentity {
    /// `nil` if it is neither a block device of this machine nor an image.
    ///
    /// - Parameter status: of the open file, or of the file at a path.
    package init?(_ status: FileStatus, view: SystemView = SystemView()) {
        switch status.kind {
        case .regular: self.init(image: status)
        case .blockDevice: self.init(device: status.device, HostState(view))
        case .directory, .other: return nil
        }
    }

    private init(image status: FileStatus) {
        facts = ["INODE=\(status.inode)"]
        if let born = status.born { facts.append("BORN=\(born)") }
        // Without a birth time another file may have the inode number later.
        isUnique = status.born != nil
        attachment = Int(truncatingIfNeeded: status.inode)
        number = status.fileSystem
        boot = bootIdentifier()
    }

    private init?(device number: UInt64, _ host: HostState) {
        guard let device = host[number] else { return nil }
        self.number = number
        boot = bootIdentifier()
        let disk = device.disk.flatMap { host[$0] } ?? device
        attachment = disk.attribute("diskseq", in: host.view).flatMap { Int($0) }
        (facts, isUnique) = Self.facts(of: device, host, depth: 0)
    }

    /// Devices below one another; more are no stack that anybody builds.
    private static let deepest = 16

    private static func facts(
        of device: KernelDevice, _ host: HostState, depth: Int
    ) -> (facts: [String], isUnique: Bool) {
        guard depth < deepest else { return (["NAME=\(device.name)"], false) }
        if let uuid = device.logicalVolumeUUID { return (["LVUUID=\(uuid)"], true) }
        if let disk = device.disk.flatMap({ host[$0] }) {
            var (facts, isUnique) = facts(of: disk, host, depth: depth + 1)
            facts.append("PARTUUID=\(device.partUUID ?? "")")
            facts.append("START=\(device.start)")
            return (facts, isUnique)
        }
        if let name = device.hardwareName(in: host.view) { return ([name], true) }
        if device.backingPath != nil { return factsOfLoop(device, host, depth: depth) }
        guard !device.slaves.isEmpty else { return (["NAME=\(device.name)"], false) }
        // An array or a crypt device has no name that a copy of its members would not have.
        var all = [device.mapperUUID.map { "DMUUID=\($0)" } ?? "NAME=\(device.name)"]
        var areUnique = true
        for slave in device.slaves.compactMap({ host[$0] }) {
            let (facts, isUnique) = facts(of: slave, host, depth: depth + 1)
            all += facts
            if !isUnique { areUnique = false }
        }
        return (all, areUnique)
    }

    private static func factsOfLoop(
        _ device: KernelDevice, _ host: HostState, depth: Int
    ) -> (facts: [String], isUnique: Bool) {
        let unknown = (["NAME=\(device.name)"], false)
        guard let loop = host.loops.first(where: { $0.loop.number == device.number }) else {
            return unknown
        }
        let offset = "OFFSET=\(loop.offset)"
        switch loop.backing {
        case .file(let identity):
            guard let path = device.backingPath,
                let status = try? FileStatus(path: host.view.devicePath(path)),
                FileIdentity(status) == identity
            else { return unknown }
            let image = TargetIdentity(image: status)
            return (image.facts + [offset], image.isUnique)
        case .device(let number):
            guard let below = host[number] else { return unknown }
            let (facts, isUnique) = facts(of: below, host, depth: depth + 1)
            return (facts + [offset], isUnique)
        case .unknown: return unknown
        }
    }

    /// Paths of the block devices of this machine that certainly have this identity.
    package func paths(view: SystemView = SystemView()) -> [String] {
        guard isUnique else { return [] }
        let host = HostState(view)
        return host.devices.filter { device in
            TargetIdentity(device: device.number, host).map { relation(to: $0) == .same } ?? false
        }.map { view.devicePath($0.path) }
    }
}

extension TargetIdentity {
    /// The identity of the device or image at a path; `nil` if there is none.
    package init?(at path: String, view: SystemView = SystemView()) {
        guard let status = try? FileStatus(path: path) else { return nil }
        self.init(status, view: view)
    }
}
