// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
package import LinuxIO
internal import Synchronization
internal import SystemPackage

/// A snapshot of this machine: block devices, mounts, swap, loop devices.
struct HostState: Sendable {
    let view: SystemView
    let devices: [KernelDevice]
    let mounts: [Mount]
    private let knownLoops = KnownLoops()
    let swapDevices: Set<UInt64>
    let swapFiles: Set<FileIdentity>

    /// Why uses may be unknown: a part of the machine cannot be seen; `nil` if all can be seen.
    let blindness: IOError?

    private let indexByNumber: [UInt64: Int]
    private let indexByName: [String: Int]
    private let btrfsMembers: [[UInt64]]

    init(_ view: SystemView) {
        self.view = view
        let shortages = Shortages.count
        let devices = namesInDirectory("\(view.sys)/class/block")
            .compactMap { KernelDevice(entry: $0, view: view) }
            .sorted { naturallyPrecedes($0.name, $1.name) }
        self.devices = devices
        indexByNumber = Dictionary(
            devices.indices.map { (devices[$0].number, $0) },
            uniquingKeysWith: { first, _ in first })
        let byName = Dictionary(
            devices.indices.map { (devices[$0].name, $0) }, uniquingKeysWith: { first, _ in first })
        indexByName = byName
        mounts = Mount.all(in: view)
        btrfsMembers = namesInDirectory("\(view.sys)/fs/btrfs").map { id in
            namesInDirectory("\(view.sys)/fs/btrfs/\(id)/devices")
                .compactMap { byName[deviceName($0)].map { devices[$0].number } }
        }

        var swapDevices: Set<UInt64> = []
        var swapFiles: Set<FileIdentity> = []
        for path in swapPaths(in: view) {
            if let number = view.deviceNumber(at: path) {
                swapDevices.insert(number)
            } else if let index = byName[lastComponent(path.text)] {
                // A container's /dev may lack the node.
                swapDevices.insert(devices[index].number)
            } else if let status = try? FileStatus(path: path) {
                swapFiles.insert(FileIdentity(status))
            }
        }
        self.swapDevices = swapDevices
        self.swapFiles = swapFiles
        blindness = Self.blindness(view, hasDevices: !devices.isEmpty, since: shortages)
    }

    /// - Parameter shortages: `Shortages.count` from before the scan.
    private static func blindness(
        _ view: SystemView, hasDevices: Bool, since shortages: Int
    ) -> IOError? {
        func blind(_ path: String, _ operation: String, _ reason: Errno) -> IOError {
            let isMissing = reason == .noSuchFileOrDirectory
            return IOError(
                path, operation, reason,
                advice: isMissing
                    ? "Mount /sys and /proc, which show what uses the devices." : nil)
        }
        let devices = "\(view.sys)/class/block"
        if !hasDevices && !FileStatus.exists(devices) {
            return blind(devices, "list devices", .noSuchFileOrDirectory)
        }
        let mounts = "\(view.proc)/self/mountinfo"
        do throws(Errno) { _ = try smallFile(mounts) } catch { return blind(mounts, "read", error) }
        return Shortages.since(shortages).map { blind(devices, "list devices", $0) }
    }

    /// Attached loop devices and their backing, determined at the first use.
    var loops: [LoopBacking] {
        knownLoops.value.withLock { known in
            let loops = known ?? LoopBacking.all(of: devices, view: view)
            known = loops
            return loops
        }
    }

    subscript(number: UInt64) -> KernelDevice? { indexByNumber[number].map { devices[$0] } }

    subscript(name: String) -> KernelDevice? { indexByName[name].map { devices[$0] } }

    func displayName(_ number: UInt64) -> String {
        self[number]?.displayName ?? "\(clb_major(number)):\(clb_minor(number))"
    }

    func partitions(of disk: KernelDevice) -> [KernelDevice] {
        devices.filter { $0.disk == disk.name }
    }

    /// Paths of the devices whose page cache covers the same bytes: a disk's partitions, a
    /// partition's disk.
    func relatives(of number: UInt64) -> [String] {
        guard let device = self[number] else { return [] }
        let disk = device.disk.flatMap { self[$0] }
        return (partitions(of: device) + (disk.map { [$0] } ?? [])).map { view.devicePath($0.path) }
    }

    func devices(of mount: Mount) -> [UInt64] {
        let extra = mount.extraDevices.compactMap { view.deviceNumber(at: $0) }
        if self[mount.device] != nil { return [mount.device] + extra }
        guard let number = view.deviceNumber(at: mount.source) else { return extra }
        // btrfs names one of its devices, and has a device number of its own.
        return (btrfsMembers.first { $0.contains(number) } ?? [number]) + extra
    }

    /// Numbers of the block devices below a file's file system; none for tmpfs, NFS and similar.
    ///
    /// No mountinfo has the `st_dev` of a btrfs subvolume. Only a path of the file or its directory
    /// finds its mount.
    func devices(ofFileSystem fileSystem: UInt64, path: KernelPath?) -> [UInt64] {
        if self[fileSystem] != nil {
            let mount = mounts.first { $0.device == fileSystem }
            return mount.map { devices(of: $0) } ?? [fileSystem]
        }
        let mount =
            mounts.first { $0.device == fileSystem }
            ?? path.flatMap { mountIdentifier(of: $0) }.flatMap { id in
                mounts.first { $0.id == id }
            }
        return mount.map { devices(of: $0) } ?? []
    }

    /// The identifier of the mount that a path leads to (proc_pid_fdinfo(5), `mnt_id`).
    private func mountIdentifier(of path: KernelPath) -> Int? {
        guard let file = try? OwnedDescriptor.open(path, flags: clb_O_PATH) else { return nil }
        let fields = descriptorFields("\(file.rawValue)", of: "self", in: view.proc)
        return fields?["mnt_id"].flatMap { Int($0) }
    }
}

/// Throws if /sys or /proc is missing, so that devices or their uses cannot be seen.
package func requireHost(view: SystemView = SystemView()) throws(IOError) {
    if let error = HostState(view).blindness { throw error }
}

/// Identifies a file independently of its path.
package struct FileIdentity: Hashable, Sendable {
    /// `st_dev`.
    package let fileSystem: UInt64
    /// `st_ino`.
    package let inode: UInt64

    package init(fileSystem: UInt64, inode: UInt64) {
        self.fileSystem = fileSystem
        self.inode = inode
    }
}

extension FileIdentity {
    package init(_ status: FileStatus) {
        self.init(fileSystem: status.fileSystem, inode: status.inode)
    }
}

private final class KnownLoops: Sendable {
    let value = Mutex<[LoopBacking]?>(nil)
}
