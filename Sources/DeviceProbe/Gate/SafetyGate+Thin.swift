// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO
internal import LogicalVolumes

/// Refuses thin pools and their parts, and devices on pools that do not zero new chunks.
extension TargetAdmission {
    /// Refuses a device that LVM uses below its volumes, and any thin pool.
    ///
    /// Other uses of a part are visible, but a pool without active volumes has none.
    func refusalForPartOfVolume(_ number: UInt64, _ host: HostState) -> IOError? {
        guard let known = host[number], known.mapperName != nil,
            known.isPartOfLogicalVolume || firstTarget(of: number)?.isThinPool == true
        else { return nil }
        return refusal(
            .wrongKind, "it is a thin pool or another part of logical volumes, not a volume",
            advice: "lvs --all shows what there is.")
    }

    /// The first line of a device-mapper table; `nil` for other devices, and without permission.
    private func firstTarget(of number: UInt64) -> MapperTable.Target? {
        view.mapper.table(of: number)?.targets.first
    }

    /// Bytes: chunks that are not zeroed are the unit of transfer, which must fit in one network
    /// request.
    private static let largestUnit = 1 << 20

    /// Refuses chunks that are too large: chunks that the pool does not zero are the unit of
    /// transfer.
    func refusalForLargeChunks(_ device: BlockSpecialFile) -> IOError? {
        let chunk = device.geometry.alignment
        guard chunk > Self.largestUnit else { return nil }
        return refusal(
            .wrongKind, "its thin pool does not zero new chunks, which have \(chunk) bytes",
            advice: Self.zeroingAdvice)
    }

    /// Refuses a device above a volume of a pool that does not zero new chunks.
    ///
    /// The start of a chunk is not known there. After a partial write of a new chunk, the rest
    /// would hold old data of some volume, although the comparison has read zeros.
    func refusalForUnzeroedChunks(_ device: BlockSpecialFile, _ host: HostState) -> IOError? {
        for below in host.foundations(of: device.number) where below.mapperName != nil {
            // The pool of a thin volume, whose chunks are written whole.
            if device.isThin, host[device.number]?.slaves == [below.name] { continue }
            let target = firstTarget(of: below.number)
            guard target?.isThinPool ?? below.isThinPoolOfLVM else { continue }
            if target?.chunks?.areZeroed == true { continue }
            return refusal(
                .wrongKind,
                "it is above \(below.displayName), a thin pool that does not zero new chunks",
                advice: Self.zeroingAdvice)
        }
        return nil
    }

    private static let zeroingAdvice = "Have it zero them: lvchange --zero y POOL"
}

extension KernelDevice {
    /// Whether LVM's UUID shows the device of a thin pool (`build_dm_uuid`).
    var isThinPoolOfLVM: Bool {
        mapperUUID.map { $0.hasPrefix("LVM-") && $0.hasSuffix("-tpool") } ?? false
    }

    /// Whether LVM uses it below a volume: the UUIDs of such devices have a suffix.
    var isPartOfLogicalVolume: Bool {
        mapperUUID.map { $0.hasPrefix("LVM-") && $0.utf8.count > 4 + 64 } ?? false
    }
}

extension HostState {
    /// All devices below a device, down to files.
    func foundations(of number: UInt64) -> [KernelDevice] {
        var seen: Set<UInt64> = [number]
        var found: [KernelDevice] = []
        var open = [number]
        while let next = open.popLast() {
            guard let device = self[next] else { continue }
            var below = device.slaves.compactMap { self[$0] }
            if let disk = device.disk.flatMap({ self[$0] }) { below.append(disk) }
            if case .device(let backing)? = loops.first(where: { $0.loop.number == next })?.backing,
                let known = self[backing]
            {
                below.append(known)
            }
            for device in below where seen.insert(device.number).inserted {
                found.append(device)
                open.append(device.number)
            }
        }
        return found
    }
}
