// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO
package import LogicalVolumes
internal import SystemPackage

/// Refuses targets that lie on the origin of the snapshot that is read.
///
/// A replica of a file system inside that file system would fill it, and the snapshot as well.
extension SafetyGate {
    /// Refuses a target that is a volume or lies on it, before a snapshot of the volume is taken.
    ///
    /// A target that cannot be found here is refused later, when it is opened.
    package static func refuse(
        _ target: Selector, on volume: VolumeIdentity, called source: String,
        view: SystemView = SystemView()
    ) throws(IOError) {
        let host = HostState(view)
        guard let origin = host.devices.first(where: { $0.volumeIdentity == volume }),
            let identity = identity(of: target, view)
        else { return }
        if identity == .device(origin.number) {
            throw .refusal(.overlap, target.description, "it is the source, \(source)")
        }
        guard host.overlap(identity, origin) else { return }
        throw .refusal(.overlap, target.description, "it lies on the source, \(source)")
    }

    /// The identity of a target, which may be an image that does not exist yet.
    private static func identity(of target: Selector, _ view: SystemView) -> DeviceIdentity? {
        guard let path = try? resolve(target, view: view) else { return nil }
        if let status = try? FileStatus(path: path) {
            return DeviceIdentity(status, path: path)
        }
        let parent = FilePath(path).removingLastComponent()
        guard let directory = try? canonicalPath(parent.isEmpty ? "." : parent.string),
            let status = try? FileStatus(path: directory)
        else { return nil }
        return .newImage(fileSystem: status.fileSystem, directory: directory)
    }
}

extension TargetAdmission {
    /// The same check at the gate, where the source is known only as the snapshot, as on a server.
    func refusalForOrigin(_ identity: DeviceIdentity, _ host: HostState) -> IOError? {
        guard case .device(let number)? = source.identity,
            let origin = host.originOfOwnSnapshot(number), host.overlap(identity, origin)
        else { return nil }
        let name = origin.volumeName?.text ?? origin.displayName
        return refusal(
            .overlap,
            identity == .device(origin.number)
                ? "the source, \(source.name), is a snapshot of it"
                : "it lies on \(name), and the source, \(source.name), is a snapshot of \(name)")
    }
}

extension HostState {
    fileprivate func overlap(_ identity: DeviceIdentity, _ origin: KernelDevice) -> Bool {
        let theirs = Footprint(.device(origin.number), on: self)
        return Footprint(identity, on: self).overlap(with: theirs) != nil
    }

    /// The origin of a snapshot that blkferry has taken, by the snapshot's name.
    fileprivate func originOfOwnSnapshot(_ number: UInt64) -> KernelDevice? {
        guard let snapshot = self[number], let name = snapshot.volumeName,
            isNameOfOwnSnapshot(name.volume)
        else { return nil }
        let words = name.volume.split(separator: ".", omittingEmptySubsequences: false)
        let origin = VolumeName(
            group: name.group, volume: words.dropLast(3).joined(separator: "."))
        return devices.first { $0.volumeName == origin }
    }
}
