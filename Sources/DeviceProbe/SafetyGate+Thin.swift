// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

/// Thin pools: what they are made of is no target, and where they do not zero new chunks, not every
/// device above is one.
extension Entrance {
    /// A device that LVM uses below its volumes, or a pool, also one of somebody else.
    ///
    /// Its use by others shows; but nobody uses a pool without volumes that are active.
    func refusalForPartOfVolume(_ number: UInt64, _ host: HostState) -> ProbeError? {
        guard let known = host[number], known.mapperName != nil,
            known.isPartOfLogicalVolume || MapperTable.Target(of: number, view)?.isThinPool == true
        else { return nil }
        return refusal(
            .wrongKind, "it is a thin pool, or another part of logical volumes, and none itself",
            advice: "lvs --all shows what there is.")
    }

    /// Chunks that the pool does not zero are the unit of transfer.
    func refusalForLargeChunks(_ device: BlockSpecialFile) -> ProbeError? {
        let chunk = device.geometry.alignment
        guard chunk > ThinVolume.largestUnit else { return nil }
        return refusal(
            .wrongKind, "its thin pool does not zero new chunks, which have \(chunk) bytes",
            advice: Self.zeroingAdvice)
    }

    /// A device above a volume of a pool that does not zero new chunks.
    ///
    /// Where a chunk begins is not known there. What a write leaves of a new one would hold what
    /// some volume had there before, though it was zeros when it was compared.
    func refusalForUnzeroedChunks(_ device: BlockSpecialFile, _ host: HostState) -> ProbeError? {
        for below in host.foundations(of: device.number) where below.mapperName != nil {
            // The pool of a thin volume, whose chunks are written as a whole.
            if device.isThin, host[device.number]?.slaves == [below.name] { continue }
            let target = MapperTable.Target(of: below.number, view)
            guard target?.isThinPool ?? below.isThinPoolOfLVM else { continue }
            if target?.chunks?.areZeroed == true { continue }
            return refusal(
                .wrongKind,
                "it stands on \(below.displayName), a thin pool that does not zero new chunks",
                advice: Self.zeroingAdvice)
        }
        return nil
    }

    private static let zeroingAdvice = "Have it zero them: lvchange --zero y POOL"
}

extension KernelDevice {
    /// Whether it is a thin pool's device, which its volumes are on; `nil` where that is for the
    /// table to say.
    ///
    /// Source: LVM's `build_dm_uuid`.
    var isThinPoolOfLVM: Bool {
        mapperUUID.map { $0.hasPrefix("LVM-") && $0.hasSuffix("-tpool") } ?? false
    }

    /// Whether LVM has it below a volume: the UUIDs of such have a suffix.
    var isPartOfLogicalVolume: Bool {
        mapperUUID.map { $0.hasPrefix("LVM-") && $0.utf8.count > 4 + 64 } ?? false
    }
}

extension HostState {
    /// All devices that a device stands on, down to files.
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
