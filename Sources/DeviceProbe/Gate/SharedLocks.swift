// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

/// Why a device is opened without being written.
package enum ReadPurpose: Sendable {
    /// To copy it: no other program that uses locks may write to it during the run.
    case source
    /// Only to compare it; other programs may use it.
    case comparison
}

/// Shared locks on a device that a run reads, and on all devices that share bytes with a device
/// that it reads or writes.
///
/// A run that writes to one of them takes an exclusive lock on it.
struct SharedLocks {
    private let host: HostState
    private let identity: DeviceIdentity

    init(_ identity: DeviceIdentity, on host: HostState) {
        self.host = host
        self.identity = identity
    }

    /// Devices with common bytes: a disk's partitions, a partition's disk, loop devices on an image
    /// and their partitions.
    private var relatives: [KernelDevice] {
        let mine = Footprint(identity, on: host)
        return host.devices.filter { other in
            other.size > 0 && identity != .device(other.number)
                && Footprint(.device(other.number), on: host).isExactlyShared(with: mine)
        }
    }

    /// Locks the relatives that can be opened, as long as the returned objects live.
    func takeOnRelatives(_ name: String) throws(IOError) -> [BlockSpecialFile] {
        var locks: [BlockSpecialFile] = []
        for relative in relatives {
            let path = host.view.devicePath(relative.path)
            guard let device = try? BlockSpecialFile(path: path, name: path, access: .read),
                device.number == relative.number
            else { continue }
            if (try? device.lock(exclusive: false)) == false {
                throw refusal(name, of: relative.number, "\(relative.path), which has bytes of it,")
            }
            locks.append(device)
        }
        return locks
    }

    /// Refuses a device that another program writes to, and names the holder of the lock.
    ///
    /// - Parameter number: of a locked block device; `nil` for an image.
    func refusal(_ name: String, of number: UInt64?, _ subject: String = "it") -> IOError {
        var owners: [String] = []
        if let number {
            owners = Claimants(host: host).ofDevice(number)
        } else if case .image(let file, let path) = identity {
            owners = Claimants(host: host).ofImage(file, path: path)
        }
        let who = owners.isEmpty ? "another program" : owners.joined(separator: ", ")
        return .refusal(
            .locked, name, "\(subject) is locked by \(who), which may write to it",
            advice: "Wait until that program has ended.")
    }
}
