// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import LinuxIO
package import LogicalVolumes

/// The logical volumes of this machine, for the safety gate.
///
/// LVM is looked up on first use, because most targets do not need it.
package struct LVMVolumeManager: VolumeManager {
    private let program: String
    private let isCancelled: @Sendable () -> Bool
    private let patience: Duration?

    /// - Parameters:
    ///   - isCancelled: polled while LVM reports. A report may wait for LVM's lock.
    ///   - patience: timeout of each report; `nil` for none.
    package init(
        program: String = "lvm", isCancelled: @escaping @Sendable () -> Bool = { false },
        patience: Duration? = nil
    ) {
        self.program = program
        self.isCancelled = isCancelled
        self.patience = patience
    }

    package func volume(at path: String) throws(IOError) -> any ManagedVolume {
        let lvm = try lvm()
        return LVMVolume(try lvm.volume(path), lvm)
    }

    package func sizeOfNew(
        _ place: VolumePlace, size: Int, as name: String
    ) throws(IOError) -> Int {
        try plan(place, size, name).size
    }

    package func create(
        _ place: VolumePlace, size: Int, as name: String
    ) throws(IOError) -> any ManagedVolume {
        let plan = try plan(place, size, name)
        // lvcreate removes old signatures. Otherwise a run that is killed before its first write
        // would leave them, and the gate would refuse the next run.
        let kind =
            place.pool.map {
                ["--type", "thin", "--virtualsize", "\(plan.size)b", "--thinpool", $0]
            }
            ?? ["--type", "linear", "--wipesignatures", "y", "--size", "\(plan.size)b"]
        do throws(IOError) {
            try plan.lvm.change("lvcreate", kind + ["--name", place.volume, place.group])
            do throws(IOError) {
                return LVMVolume(try plan.lvm.volume(place.name), plan.lvm)
            } catch {
                // The volume is new and empty.
                try? plan.lvm.change("lvremove", ["--force", place.name])
                throw error
            }
        } catch {
            throw IOError(name, "create", reason: error.reason, advice: error.advice)
        }
    }

    private func lvm() throws(IOError) -> LVM {
        try LVM(program: program, isCancelled: isCancelled, patience: patience)
    }

    /// Computes the size of a new volume, and checks the name, the pool and the group's free space.
    private func plan(
        _ place: VolumePlace, _ wanted: Int, _ name: String
    ) throws(IOError) -> (lvm: LVM, size: Int) {
        let lvm: LVM
        let group: VolumeGroup
        let others: [LogicalVolume]
        do throws(IOError) {
            lvm = try self.lvm()
            group = try lvm.group(place.group)
            others = try lvm.volumes(place.group)
        } catch {
            throw IOError(name, "create", reason: error.reason, advice: error.advice)
        }
        if let other = others.first(where: { $0.name == place.volume }) {
            throw .refusal(
                .nameTaken, name, "\(other.fullName) is there, but not active",
                advice: "Activate it first: lvchange --activate y \(other.fullName)")
        }
        let size = wanted.roundedUp(to: group.extentSize)
        if let pool = place.pool {
            guard others.contains(where: { $0.name == pool && $0.isThinPool }) else {
                throw IOError(
                    name, "create", reason: "\(place.group)/\(pool) is no thin pool",
                    advice: "lvs \(place.group) shows what there is.")
            }
        } else if group.free < size {
            throw .noRoom(for: size, in: place.group, free: group.free, name)
        }
        return (lvm, size)
    }
}

extension IOError {
    /// Refuses because the group does not have enough free space; sizes in bytes.
    ///
    /// - Parameter spare: a snapshot that the user may remove to make room.
    static func noRoom(
        for size: Int, in group: String, free: Int, _ name: String, spare: String? = nil
    ) -> IOError {
        let room = spare.map { "Remove what is not needed, such as \($0)" } ?? "Make room in it"
        return .refusal(
            .noSpace, name, "\(group) has \(free) bytes that are free, and \(size) are needed",
            advice: "\(room), or add a disk: vgextend \(group) DISK")
    }
}
