// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO

/// One use of a device, in words.
struct Use: Hashable, Sendable {
    /// Which device is in use.
    enum Subject: Hashable, Sendable {
        case itself
        case partition(String)
        case disk(String)
        /// Another device with the same bytes.
        case other(String)
    }

    /// How it is used, in words without names and paths.
    enum Way: String, Sendable {
        case mounted
        case held
        case swap = "in use as swap"
        case loop = "behind a loop device"
    }

    var subject = Subject.itself
    var way: Way
    /// Such as `mounted on /mnt`.
    var text: String
    var advice: String?

    fileprivate static let swap = Use(
        way: .swap, text: Way.swap.rawValue, advice: "Run swapoff on it first.")

    /// The same use, as one of another device.
    fileprivate func of(_ subject: Subject) -> Use {
        Use(subject: subject, way: way, text: text, advice: advice)
    }

    /// `it is mounted on /mnt`, `its partition sda1 is mounted on /mnt`.
    var clause: String {
        switch subject {
        case .itself: "it is \(text)"
        case .partition(let name): "its partition \(name) is \(text)"
        case .disk(let name): "its disk \(name) is \(text)"
        case .other(let name): "it shares its bytes with \(name), which is \(text)"
        }
    }

    /// The use without names and paths, which other clients must not see.
    var kind: String {
        switch subject {
        case .itself: way.rawValue
        case .partition: "partition \(way.rawValue)"
        case .disk: "disk \(way.rawValue)"
        case .other: "shared bytes \(way.rawValue)"
        }
    }

    /// `mounted on /mnt`, `partition sda1 mounted on /mnt`.
    var note: String {
        switch subject {
        case .itself: text
        case .partition(let name): "partition \(name) \(text)"
        case .disk(let name): "disk \(name) \(text)"
        case .other(let name): "\(name) \(text)"
        }
    }
}

extension HostState {
    /// All uses of a device, of its partitions, or of the disk it is a partition of.
    func uses(of number: UInt64) -> [Use] {
        guard let device = self[number] else { return directUses(of: number, depth: 0) }
        var uses = usesFromAbove(device, depth: 0)
        if let disk = device.disk.flatMap({ self[$0] }) {
            uses += directUses(of: disk.number, depth: 0).map { $0.of(.disk(disk.name)) }
        }
        return uses
    }

    /// Uses of other devices with exactly the same bytes: a second loop device on a file, or the
    /// device behind a loop device.
    ///
    /// Device-mapper and md devices are excluded: many share their foundation without harm. The
    /// loop devices that the device itself stands on are not uses of the devices below them.
    func usesOfSharedBytes(with number: UInt64) -> [Use] {
        let mine = Footprint(.device(number), on: self)
        let own = mine.exactDevices
        return devices.filter { other in
            other.number != number && other.size > 0
                && Footprint(.device(other.number), on: self).isExactlyShared(with: mine)
        }.flatMap { other in
            directUses(of: other.number, depth: 0, besides: own).map { $0.of(.other(other.path)) }
        }
    }

    func uses(of file: FileIdentity) -> [Use] {
        var uses: [Use] = []
        if swapFiles.contains(file) { uses.append(.swap) }
        for loop in loops where loop.backing == .file(file) {
            uses.append(use(byLoop: loop, depth: 0))
        }
        return uses
    }

    private func usesFromAbove(_ device: KernelDevice, depth: Int) -> [Use] {
        var uses = directUses(of: device.number, depth: depth)
        for partition in partitions(of: device) {
            uses += directUses(of: partition.number, depth: depth)
                .map { $0.of(.partition(partition.name)) }
        }
        return uses
    }

    /// - Parameter own: numbers of loop devices that are not counted as uses.
    private func directUses(
        of number: UInt64, depth: Int, besides own: Set<UInt64> = []
    ) -> [Use] {
        // No machine stacks devices higher; the limit stops loops in a broken tree.
        guard depth < 16 else { return [] }
        var uses: [Use] = []
        if let use = useByMounts(number) { uses.append(use) }
        if swapDevices.contains(number) { uses.append(.swap) }
        for holder in self[number]?.holders ?? [] {
            uses.append(use(byHolder: holder, depth: depth))
        }
        for loop in loops
        where loop.backing == .device(number) && !own.contains(loop.loop.number) {
            uses.append(use(byLoop: loop, depth: depth))
        }
        return uses
    }

    private func useByMounts(_ number: UInt64) -> Use? {
        var points: [String] = []
        for mount in mounts where devices(of: mount).contains(number) {
            let point = printable(mount.point)
            if !points.contains(where: { $0.isSame(as: point) }) { points.append(point) }
        }
        guard let first = points.first else { return nil }
        let shown = points.prefix(3).joined(separator: ", ")
        let hidden = points.count - 3
        let more =
            hidden > 0 ? " and \(hidden) other \(hidden == 1 ? "place" : "places")" : ""
        return Use(
            way: .mounted, text: "mounted on \(shown)\(more)",
            advice: "Unmount it first: umount \(first)")
    }

    private func use(byHolder name: String, depth: Int) -> Use {
        let holder = self[name]
        let kind = name.hasPrefix("dm-") ? "device-mapper device " : ""
        let beyond = holder.map { usesFromAbove($0, depth: depth + 1) } ?? []
        let advice: String
        if let mapped = holder?.mapperName {
            advice =
                holder?.mapperUUID?.hasPrefix("LVM-") == true
                ? "Deactivate it first: lvchange -an /dev/mapper/\(mapped)"
                : "Remove it first: dmsetup remove \(mapped)"
        } else if name.hasPrefix("md") {
            advice = "Stop the array first: mdadm --stop /dev/\(name)"
        } else {
            advice = "Stop \(name) first."
        }
        return Use(
            way: .held,
            text: "held by \(kind)\(holder?.displayName ?? name)" + Self.andWhatFor(beyond),
            advice: beyond.first?.advice ?? advice)
    }

    private func use(byLoop loop: LoopBacking, depth: Int) -> Use {
        let beyond = usesFromAbove(loop.loop, depth: depth + 1)
        return Use(
            way: .loop, text: "behind loop device \(loop.loop.path)" + Self.andWhatFor(beyond),
            advice: beyond.first?.advice ?? "Detach it first: losetup -d \(loop.loop.path)")
    }

    private static func andWhatFor(_ uses: [Use]) -> String {
        uses.isEmpty ? "" : " (\(uses.map(\.note).joined(separator: ", ")))"
    }
}
