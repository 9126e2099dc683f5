// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import LinuxIO
internal import SystemPackage

extension SafetyGate {
    /// Refuses a new file that would lie on a block device that is read meanwhile.
    ///
    /// Writing it would change the device.
    ///
    /// - Parameter device: an image may be beside the file.
    package static func checkOutput(
        _ path: String, besides device: Selector, view: SystemView = SystemView()
    ) throws(IOError) {
        let written = FilePath(path).removingLastComponent()
        let directory: DeviceIdentity
        do throws(Errno) {
            let real = try canonicalPath(written.isEmpty ? "." : written.string)
            let status = try FileStatus(path: real)
            guard status.kind == .directory else { throw Errno.notDirectory }
            directory = .newImage(fileSystem: status.fileSystem, directory: real)
        } catch {
            throw IOError(path, "create", error)
        }
        guard let place = try? find(device, view: view).path,
            let status = try? FileStatus(path: place), status.kind == .blockDevice
        else { return }
        let host = HostState(view)
        let overlap = Footprint(.device(status.device), on: host)
            .overlap(with: Footprint(directory, on: host))
        guard overlap != nil else { return }
        throw .refusal(
            .overlap, path, "it would be on \(device), which is read",
            advice: "Name a file on another device.")
    }
}
