// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// What this machine has and uses at one moment: block devices, mounts, swap, loop devices.
struct HostState: Sendable {
    let view: SystemView
    let devices: [KernelDevice]
    let mounts: [Mount]
    let loops: [LoopBacking]
    /// Numbers of the devices that the kernel swaps to.
    let swapDevices: Set<UInt64>
    /// The files that the kernel swaps to.
    let swapFiles: Set<FileIdentity>

    /// What of the machine cannot be seen, so that who uses a device is not known; else `nil`.
    let blindness: IOError?

    private let indexByNumber: [UInt64: Int]
    private let indexByName: [String: Int]
    /// For each mounted btrfs: the numbers of all its devices.
    private let btrfsMembers: [[UInt64]]

    /// Looks at the machine.
    init(_ view: SystemView) {
        self.view = view
        let devices = namesInDirectory("\(view.sys)/class/block")
            .compactMap { KernelDevice(entry: $0, view: view) }
            .sorted { naturallyPrecedes($0.name, $1.name) }
        self.devices = devices
        let advice = "Mount /sys and /proc, so that it can be seen who uses what."
        if devices.isEmpty && !FileStatus.exists("\(view.sys)/class/block") {
            blindness = IOError(
                "\(view.sys)/class/block", "list devices", .noSuchFileOrDirectory, advice: advice)
        } else if readSmallFile("\(view.proc)/self/mountinfo") == nil {
            blindness = IOError(
                "\(view.proc)/self/mountinfo", "read", .noSuchFileOrDirectory, advice: advice)
        } else {
            blindness = nil
        }
        indexByNumber = Dictionary(
            devices.indices.map { (devices[$0].number, $0) },
            uniquingKeysWith: { first, _ in first })
        let byName = Dictionary(
            devices.indices.map { (devices[$0].name, $0) }, uniquingKeysWith: { first, _ in first })
        indexByName = byName
        mounts = Mount.all(in: view)
        loops = devices.compactMap { LoopBacking(loop: $0, view: view) }
        btrfsMembers = namesInDirectory("\(view.sys)/fs/btrfs").map { id in
            namesInDirectory("\(view.sys)/fs/btrfs/\(id)/devices")
                .compactMap { byName[KernelDevice.deviceName($0)].map { devices[$0].number } }
        }

        var swapDevices: Set<UInt64> = []
        var swapFiles: Set<FileIdentity> = []
        for path in swapPaths(in: view) {
            if let number = view.deviceNumber(at: path) {
                swapDevices.insert(number)
            } else if let index = byName[lastComponent(path)] {
                // A container's /dev lacks the node.
                swapDevices.insert(devices[index].number)
            } else if let status = try? FileStatus(path: path) {
                swapFiles.insert(FileIdentity(status))
            }
        }
        self.swapDevices = swapDevices
        self.swapFiles = swapFiles
    }

    subscript(number: UInt64) -> KernelDevice? { indexByNumber[number].map { devices[$0] } }

    subscript(name: String) -> KernelDevice? { indexByName[name].map { devices[$0] } }

    /// What people call a device.
    func displayName(_ number: UInt64) -> String {
        self[number]?.displayName ?? "\(clb_major(number)):\(clb_minor(number))"
    }

    func partitions(of disk: KernelDevice) -> [KernelDevice] {
        devices.filter { $0.disk == disk.name }
    }

    /// Paths of the devices that cache the same bytes: partitions of a disk, the disk of a
    /// partition.
    func relatives(of number: UInt64) -> [String] {
        guard let device = self[number] else { return [] }
        let disk = device.disk.flatMap { self[$0] }
        return (partitions(of: device) + (disk.map { [$0] } ?? [])).map { view.devicePath($0.path) }
    }

    /// The devices that a mounted file system is on.
    func devices(of mount: Mount) -> [UInt64] {
        let extra = mount.extraDevices.compactMap { view.deviceNumber(at: $0) }
        if self[mount.device] != nil { return [mount.device] + extra }
        guard let number = view.deviceNumber(at: mount.source) else { return extra }
        // btrfs names one of its devices and has a device number that is none of theirs.
        return (btrfsMembers.first { $0.contains(number) } ?? [number]) + extra
    }

    /// The devices that a file's file system is on; none for tmpfs, NFS and the like.
    ///
    /// - Parameters:
    ///   - fileSystem: the file's `st_dev`.
    ///   - path: a path of the file or its directory, where there is one: a btrfs subvolume has a
    ///     number that stands in no mountinfo, only the mount that the path leads through tells.
    /// - Returns: numbers of block devices.
    func devices(ofFileSystem fileSystem: UInt64, path: String?) -> [UInt64] {
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

    /// The mount that a path leads to.
    ///
    /// Source: proc_pid_fdinfo(5), `mnt_id`.
    private func mountIdentifier(of path: String) -> Int? {
        guard let file = try? OwnedDescriptor.open(path, flags: clb_O_PATH),
            let text = readSmallFile("\(view.proc)/self/fdinfo/\(file.rawValue)")
        else { return nil }
        let line = text.split(separator: "\n").first { $0.hasPrefix("mnt_id:") }
        return line?.split(whereSeparator: \.isWhitespace).last.flatMap { Int($0) }
    }
}

/// What tells one file from all others, whatever its path.
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
    init(_ status: FileStatus) { self.init(fileSystem: status.fileSystem, inode: status.inode) }
}

/// An attached loop device and what it stands on.
struct LoopBacking: Sendable {
    enum Backing: Hashable, Sendable {
        case file(FileIdentity)
        case device(UInt64)
        /// It stands on something that cannot be told.
        case unknown
    }

    let loop: KernelDevice
    let backing: Backing
    /// Bytes into what it stands on.
    let offset: Int

    /// Asks what a device stands on.
    ///
    /// The kernel answers with device and inode number; only where the device cannot be opened the
    /// path that was used to attach it has to do.
    ///
    /// `nil` when it is no attached loop device.
    init?(loop: KernelDevice, view: SystemView) {
        guard let path = loop.backingPath else { return nil }
        self.loop = loop
        var answer = clb_loop_backing()
        if view.deviceNumber(at: loop.path) == loop.number,
            let file = try? OwnedDescriptor.open(
                view.devicePath(loop.path), flags: O_RDONLY | O_NONBLOCK)
        {
            if clb_get_loop_backing(file.rawValue, &answer) == 0 {
                offset = Int(clamping: answer.offset)
                backing =
                    answer.block_device != 0
                    ? .device(answer.block_device)
                    : .file(FileIdentity(fileSystem: answer.device, inode: answer.inode))
                return
            }
            // It was detached since sysfs was read.
            if errno == ENXIO { return nil }
        }
        let attribute = "\(view.sys)/class/block/\(loop.name)/loop/offset"
        offset = readSmallFile(attribute).flatMap { Int($0) } ?? 0
        if let status = try? FileStatus(path: view.devicePath(path)) {
            backing = status.kind == .blockDevice ? .device(status.device) : .file(.init(status))
        } else {
            backing = .unknown
        }
    }
}
