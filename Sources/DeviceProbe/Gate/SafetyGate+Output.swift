// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import LinuxIO
internal import SystemPackage

extension SafetyGate {
    /// Refuses a new file that would lie on a device that is read meanwhile, or among the devices.
    ///
    /// Writing it would change the device.
    ///
    /// - Parameter device: an image may be beside the file, unless the file would be in it.
    package static func checkOutput(
        _ path: String, besides device: Selector, view: SystemView = SystemView()
    ) throws(IOError) {
        let written = FilePath(path).removingLastComponent()
        let directory: DeviceIdentity
        do throws(Errno) {
            let real = try canonicalPath(written.isEmpty ? "." : written.string)
            let status = try FileStatus(path: real)
            guard status.kind == .directory else { throw Errno.notDirectory }
            guard !isAmongDevices(real) else { throw Errno.notSupported }
            directory = .newImage(fileSystem: status.fileSystem, directory: real)
        } catch .notSupported {
            throw .refusal(.wrongKind, path, "no file is created under /dev")
        } catch {
            throw IOError(path, "create", error)
        }
        guard let place = try? find(device, view: view).path,
            let status = try? FileStatus(path: place),
            let identity = DeviceIdentity(status, path: place)
        else { return }
        let host = HostState(view)
        let overlap = Footprint(identity, on: host)
            .overlap(with: Footprint(directory, on: host))
        guard overlap != nil else { return }
        throw .refusal(
            .overlap, path, "it would be on \(device), which is read",
            advice: "Name a file on another device.")
    }

    /// Whether a file in the directory, a canonical path, would be taken for a device: a name that
    /// is mistyped would become a file in memory.
    package static func isAmongDevices(_ directory: String) -> Bool {
        (directory + "/").hasPrefix("/dev/") && !(directory + "/").hasPrefix("/dev/shm/")
    }
}
