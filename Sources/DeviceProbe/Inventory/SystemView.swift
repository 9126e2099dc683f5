// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import CLinuxBlock
internal import Glibc
internal import LinuxIO

/// Where this machine describes its devices; tests use a made-up tree.
package struct SystemView: Sendable {
    package var sys: String
    package var proc: String
    package var dev: String
    /// LVM's program.
    package var lvm: String

    package init(
        sys: String = "/sys", proc: String = "/proc", dev: String = "/dev", lvm: String = "lvm"
    ) {
        self.sys = sys
        self.proc = proc
        self.dev = dev
        self.lvm = lvm
    }

    var mapper: DeviceMapper { DeviceMapper(directory: "\(dev)/mapper") }

    /// Maps a path that starts with `/dev/` into this view's tree of device files.
    func devicePath(_ path: String) -> String {
        path.hasPrefix("/dev/") ? dev + path.dropFirst("/dev".count) : path
    }

    func devicePath(_ path: KernelPath) -> KernelPath {
        guard path.bytes.starts(with: "/dev/".utf8) else { return path }
        return KernelPath(Array(dev.utf8) + path.bytes.dropFirst("/dev".utf8.count))
    }

    func deviceNumber(at path: String) -> UInt64? { deviceNumber(at: KernelPath(path)) }

    func deviceNumber(at path: KernelPath) -> UInt64? {
        guard path.isAbsolute, let status = try? FileStatus(path: devicePath(path)),
            status.kind == .blockDevice
        else { return nil }
        return status.device
    }
}

/// The corresponding C function is `readlink`.
func symbolicLinkTarget(_ path: String) -> String? {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { buffer in
        guard let base = buffer.baseAddress else { return nil }
        let count = readlink(path, base, buffer.count)
        guard count >= 0 else { return nil }
        return String(decoding: UnsafeRawBufferPointer(buffer)[..<count], as: UTF8.self)
    }
}

/// Reads `major:minor`, as sysfs and mountinfo write device numbers.
func deviceNumber(_ text: some StringProtocol) -> UInt64? {
    let parts = text.split(separator: ":")
    guard parts.count == 2, let major = UInt32(parts[0]), let minor = UInt32(parts[1]) else {
        return nil
    }
    return clb_makedev(major, minor)
}

func lastComponent(_ path: String) -> String {
    // Splits bytes, as the kernel does: as characters, a combining mark would hide a slash.
    path.utf8.split(separator: UInt8(ascii: "/")).last.map { String(decoding: $0, as: UTF8.self) }
        ?? path
}
