// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import DeviceProbe
package import LinuxIO

/// The logical volumes of this machine, for the safety gate.
///
/// LVM is looked for when it is needed: most targets need none.
package struct LocalVolumes: TargetVolumes {
    private let program: String
    private let isCancelled: @Sendable () -> Bool
    private let patience: Duration?

    /// - Parameters:
    ///   - program: LVM's, as `LVM` finds it.
    ///   - isCancelled: asked now and then while LVM only reports, which it may wait for others with.
    ///   - patience: how long each of its reports may take; `nil` for as long as it takes.
    package init(
        program: String = "lvm", isCancelled: @escaping @Sendable () -> Bool = { false },
        patience: Duration? = nil
    ) {
        self.program = program
        self.isCancelled = isCancelled
        self.patience = patience
    }

    package func volume(at path: String) throws(IOError) -> any TargetVolume {
        let lvm = try lvm()
        return LocalVolume(try lvm.volume(path), lvm)
    }

    package func sizeOfNew(
        _ place: VolumePlace, size: Int, as name: String
    ) throws(ProbeError) -> Int {
        try plan(place, size, name).size
    }

    package func create(
        _ place: VolumePlace, size: Int, as name: String
    ) throws(ProbeError) -> any TargetVolume {
        let plan = try plan(place, size, name)
        // What others have left there is overwritten; but where a run is killed before, it would keep
        // the next one out.
        let kind =
            place.pool.map {
                ["--type", "thin", "--virtualsize", "\(plan.size)b", "--thinpool", $0]
            }
            ?? ["--type", "linear", "--wipesignatures", "y", "--size", "\(plan.size)b"]
        do throws(IOError) {
            try plan.lvm.change("lvcreate", kind + ["--name", place.volume, place.group])
            do throws(IOError) {
                return LocalVolume(try plan.lvm.volume(place.name), plan.lvm)
            } catch {
                // Just made, and empty.
                try? plan.lvm.change("lvremove", ["--force", place.name])
                throw error
            }
        } catch {
            throw .failed(IOError(name, "create", reason: error.reason, advice: error.advice))
        }
    }

    private func lvm() throws(IOError) -> LVM {
        try LVM(program: program, isCancelled: isCancelled, patience: patience)
    }

    /// How large a new volume would be, if nothing speaks against it.
    private func plan(
        _ place: VolumePlace, _ wanted: Int, _ name: String
    ) throws(ProbeError) -> (lvm: LVM, size: Int) {
        let lvm: LVM
        let group: VolumeGroup
        let others: [LogicalVolume]
        do throws(IOError) {
            lvm = try self.lvm()
            group = try lvm.group(place.group)
            others = try lvm.volumes(place.group)
        } catch {
            throw .failed(IOError(name, "create", reason: error.reason, advice: error.advice))
        }
        if let other = others.first(where: { $0.name == place.volume }) {
            throw .refused(
                Refusal(
                    .nameTaken, name, "\(other.fullName) is there, but not active",
                    advice: "Activate it first: lvchange --activate y \(other.fullName)"))
        }
        let size = wanted.roundedUp(to: group.extentSize)
        if let pool = place.pool {
            guard others.contains(where: { $0.name == pool && $0.isThinPool }) else {
                throw .failed(
                    IOError(
                        name, "create", reason: "\(place.group)/\(pool) is no thin pool",
                        advice: "lvs \(place.group) shows what there is."))
            }
        } else if group.free < size {
            throw .refused(Refusal(noRoomFor: size, in: place.group, free: group.free, name))
        }
        return (lvm, size)
    }
}

extension Refusal {
    /// A group has not enough room.
    ///
    /// - Parameters:
    ///   - size: what is needed, in bytes.
    ///   - group: its name.
    ///   - free: what it has, in bytes.
    ///   - name: what the user calls the target.
    ///   - spare: what may be removed from it.
    init(noRoomFor size: Int, in group: String, free: Int, _ name: String, spare: String? = nil) {
        let room = spare.map { "Remove what is not needed, such as \($0)" } ?? "Make room in it"
        self.init(
            .noSpace, name, "\(group) has \(free) bytes that are free, and \(size) are needed",
            advice: "\(room), or add a disk: vgextend \(group) DISK")
    }
}
