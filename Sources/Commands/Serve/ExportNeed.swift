// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import SystemPackage
internal import WireProtocol

extension Privileges {
    /// The capabilities and programs that an export needs, beyond the rights of every process of
    /// the server's user.
    ///
    /// The thread that determines them asks the kernel about each file. It has suspended its
    /// capabilities (`Capabilities.suspend`) or runs as that user.
    struct Need {
        var capabilities: Capabilities = []
        /// Whether the server may have to start LVM's programs.
        var runsLVM = false
        /// The first file or device that cannot be used without capabilities.
        var object: String?
    }
}

extension Privileges.Need {
    /// Most files of an exported directory to check; for a larger directory the server keeps all
    /// capabilities that files of other users can need.
    private static let mostFiles = 10_000

    mutating func add(_ other: Self) {
        capabilities.formUnion(other.capabilities)
        runsLVM = runsLVM || other.runsLVM
        object = object ?? other.object
    }

    /// The need of reading every block device of the machine.
    ///
    /// - Parameter isRoot: whether the server can keep capabilities.
    static func ofMachine(isRoot: Bool) -> Self {
        var need = ofDevices(.readOnly, isRoot: isRoot)
        need.runsLVM = hasLVM
        return need
    }

    private static var hasLVM: Bool { Program.findOfSystem("lvm") != nil }

    /// The need of reading a file again at SIGHUP.
    init(readable path: String) { require(path, R_OK, .readOnly) }

    /// The need of one export.
    ///
    /// - Parameters:
    ///   - createsImages: whether the server creates a missing image.
    ///   - isRoot: whether the server can keep capabilities.
    init(_ export: ExportSelector, createsImages: Bool, isRoot: Bool) {
        runsLVM = Self.mayBeVolume(export)
        guard case .path(let path) = export.selector, export.group == nil, !export.isVolumeName
        else {
            add(.ofDevices(export.access, isRoot: isRoot))
            return
        }
        let mode = export.access == .readWrite ? R_OK | W_OK : R_OK
        if export.isDirectory {
            require(path, mode | X_OK, export.access)
            if isRoot { addFiles(in: path, export.access) }
            return
        }
        var status = stat()
        if stat(path, &status) != 0, currentErrno() == .noSuchFileOrDirectory {
            if createsImages, let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) {
                let directory = String(decoding: path.utf8[...slash], as: UTF8.self)
                require(directory, W_OK | X_OK, .readWrite)
            }
            return
        }
        require(path, mode, export.access)
        addLease(status, export.access)
    }

    /// The need of an export that can be any block device.
    ///
    /// If the server cannot keep capabilities, one usable device is enough. The result then has an
    /// object only if the user can use no device.
    private static func ofDevices(_ access: ExportAccess, isRoot: Bool) -> Self {
        let mode = access == .readWrite ? R_OK | W_OK : R_OK
        var need = Self()
        var isAnyUsable = false
        for name in namesInDirectory("/sys/class/block") {
            let path = "/dev/\(deviceName(name))"
            guard FileStatus.exists(path) else { continue }
            var one = Self()
            one.require(path, mode, access)
            if one.object == nil { isAnyUsable = true } else { need.add(one) }
        }
        return isRoot || !isAnyUsable ? need : Self()
    }

    /// The reason why only root can offer an export; `nil` if other users can.
    static func reasonForRoot(_ export: ExportSelector) -> String? {
        if export.canCreate { return "only root can make logical volumes" }
        guard export.access == .readWrite else { return nil }
        let isVolume: Bool
        switch export.selector {
        case .tag(let tag, _): isVolume = tag == .lvUUID
        case .path(let path):
            isVolume = export.group != nil || export.isVolumeName || isMapped(path) == true
        }
        return isVolume ? "only root can write logical volumes" : nil
    }

    /// Whether the server may have to run LVM to find the device of an export.
    private static func mayBeVolume(_ export: ExportSelector) -> Bool {
        if export.group != nil || export.isVolumeName || export.canCreate { return true }
        if export.isDirectory || !hasLVM { return false }
        guard case .path(let path) = export.selector else { return true }
        return isMapped(path) ?? ExportSelector.canBeVolume(path)
    }

    /// Whether a path leads to an active logical volume; `nil` if the path cannot be looked up.
    private static func isMapped(_ path: String) -> Bool? {
        guard let status = try? FileStatus(path: path) else { return nil }
        guard status.kind == .blockDevice else { return false }
        let (major, minor) = (clb_major(status.device), clb_minor(status.device))
        return readSmallFile("/sys/dev/block/\(major):\(minor)/dm/uuid")?.hasPrefix("LVM-") ?? false
    }

    private mutating func require(_ path: String, _ mode: Int32, _ access: ExportAccess) {
        do throws(Errno) { try Capabilities.checkAccess(path, mode) } catch {
            switch error {
            // Linux before 5.8 may be unable to answer, so the file may need the capability.
            case .permissionDenied, .notPermitted, .noFunction: lack(path, access)
            default: return
            }
        }
    }

    private mutating func lack(_ path: String, _ access: ExportAccess) {
        capabilities.insert(access == .readWrite ? .overrideAccess : .readSearch)
        object = object ?? path
    }

    /// Adds CAP_LEASE for an image of another user: the gate takes a lease on it, to detect other
    /// programs that have it open.
    private mutating func addLease(_ status: stat, _ access: ExportAccess) {
        if access == .readWrite, status.st_uid != geteuid() { capabilities.insert(.lease) }
    }

    /// Adds the needs of the files in a directory, and of files that other users can create there.
    private mutating func addFiles(in directory: String, _ access: ExportAccess) {
        var directories = [directory]
        var count = 0
        while let directory = directories.popLast() {
            var status = stat()
            guard lstat(directory, &status) == 0 else { continue }
            let isOpen =
                status.st_uid != 0 || status.st_mode & S_IWOTH != 0
                || status.st_gid != 0 && status.st_mode & S_IWGRP != 0
            for name in namesInDirectory(directory) {
                let path = directory.hasSuffix("/") ? directory + name : "\(directory)/\(name)"
                guard lstat(path, &status) == 0 else { continue }
                count += 1
                if count > Self.mostFiles { break }
                switch status.st_mode & S_IFMT {
                case S_IFDIR: directories.append(path)
                case S_IFREG:
                    require(path, access == .readWrite ? R_OK | W_OK : R_OK, access)
                    addLease(status, access)
                default: break
                }
            }
            let mode = access == .readWrite ? R_OK | W_OK | X_OK : R_OK | X_OK
            require(directory, mode, access)
            guard !isOpen, count <= Self.mostFiles else {
                lack(directory, access)
                if access == .readWrite { capabilities.insert(.lease) }
                return
            }
        }
    }
}
