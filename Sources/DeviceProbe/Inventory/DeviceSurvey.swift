// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO
package import LogicalVolumes
internal import Synchronization
internal import SystemPackage

/// Describes devices and images from a single scan of the machine, made when first needed.
///
/// A later change needs a new survey. Methods about block devices throw if sysfs or procfs is
/// missing.
package final class DeviceSurvey: Sendable {
    private let view: SystemView
    private let contents: ImageContents
    private let known = Mutex<HostState?>(nil)

    package init(view: SystemView = SystemView(), contents: ImageContents = ImageContents()) {
        self.view = view
        self.contents = contents
    }

    private var host: HostState {
        known.withLock { known in
            let host = known ?? HostState(view)
            known = host
            return host
        }
    }

    private func visibleHost() throws(IOError) -> HostState {
        let host = host
        if let error = host.blindness { throw error }
        return host
    }

    /// Describes every block device; one that does not answer is `unreadable`.
    package func devices() throws(IOError) -> [DeviceDescription] {
        let host = try visibleHost()
        let inventory = Inventory(host)
        return inventory.devices.indices.map { DeviceDescription(inventory.entry($0), host) }
    }

    /// Describes one device or image, and reads no other device except the disk of a partition.
    ///
    /// - Throws: a failure if there is no such device; a refusal if it is neither block device nor
    ///   image.
    package func describe(path: String, as name: String) throws(IOError) -> DeviceDescription {
        let status: FileStatus
        do throws(Errno) { status = try FileStatus(path: path) } catch {
            throw IOError(name, "open", error)
        }
        switch status.kind {
        case .blockDevice:
            guard var description = try describe(device: status.device) else {
                throw IOError(name, "find device", reason: "it has no size or is not attached")
            }
            description.entry.path = name
            return description
        case .regular:
            // Images are served even without /sys and /proc.
            if let error = host.blindness, error.errno.map(Shortages.includes) == true {
                throw error
            }
            return DeviceDescription(image: path, as: name, status, host, contents)
        case .directory, .other:
            throw .wrongKind(name, path)
        }
    }

    /// Describes the device with an `st_rdev`; `nil` if it has no size or is not attached.
    package func describe(device number: UInt64) throws(IOError) -> DeviceDescription? {
        let host = try visibleHost()
        // The table of the disk holds the partition's name.
        let disk = host[number]?.disk.flatMap { host[$0]?.number }
        let inventory = Inventory(host, only: Set([number, disk].compactMap(\.self)))
        guard let index = inventory.devices.firstIndex(where: { $0.number == number }) else {
            return nil
        }
        return DeviceDescription(inventory.entry(index), host)
    }

    /// Device file and LVM name of the device with an `st_rdev`, found without reading the device.
    package func names(
        of number: UInt64
    ) throws(IOError) -> (path: String, volume: VolumeName?)? {
        try visibleHost()[number].map { ($0.path, $0.volumeName) }
    }

    /// The `st_rdev` of an active logical volume, found without reading the volume.
    package func number(of volume: VolumeName) throws(IOError) -> UInt64? {
        try visibleHost().devices.first { $0.size > 0 && $0.volumeName == volume }?.number
    }
}

package func describe(
    path: String, as name: String, view: SystemView = SystemView()
) throws(IOError) -> DeviceDescription {
    try DeviceSurvey(view: view).describe(path: path, as: name)
}
