// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
package import SystemPackage

/// Where this machine tells about its devices; a made-up tree stands in for it in tests.
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

    /// A path that starts with `/dev/`, in this view's tree of device files.
    func devicePath(_ path: String) -> String {
        path.hasPrefix("/dev/") ? dev + path.dropFirst("/dev".count) : path
    }

    /// The number of the block device that a path leads to; `nil` when there is none.
    func deviceNumber(at path: String) -> UInt64? {
        guard path.hasPrefix("/"), let status = try? FileStatus(path: devicePath(path)),
            status.kind == .blockDevice
        else { return nil }
        return status.device
    }
}

/// What a symbolic link holds; `nil` when it is none.
///
/// The corresponding C function is `readlink`.
func symbolicLinkTarget(_ path: String) -> String? {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { buffer in
        guard let base = buffer.baseAddress else { return nil }
        let count = readlink(path, base, buffer.count)
        guard count >= 0 else { return nil }
        return String(decoding: UnsafeRawBufferPointer(buffer)[..<count], as: UTF8.self)
    }
}

/// A path without symbolic links, `.` and `..`.
///
/// The corresponding C function is `realpath`.
///
/// - Throws: what realpath(3) says, ENOENT when a part of it is missing.
package func canonicalPath(_ path: String) throws(Errno) -> String {
    guard let answer = realpath(path, nil) else { throw currentErrno() }
    defer { free(answer) }
    return String(cString: answer)
}

/// Reads `major:minor`, as sysfs and mountinfo write device numbers.
func deviceNumber(_ text: some StringProtocol) -> UInt64? {
    let parts = text.split(separator: ":")
    guard parts.count == 2, let major = UInt32(parts[0]), let minor = UInt32(parts[1]) else {
        return nil
    }
    return clb_makedev(major, minor)
}

/// The last part of a path.
func lastComponent(_ path: String) -> String {
    path.split(separator: "/").last.map(String.init) ?? path
}

/// Text that somebody else chose, fit for one line of a terminal: no control characters.
package func printable(_ text: String) -> String {
    let safe = text.unicodeScalars.map { scalar in
        scalar.value < 0x20 || (0x7F..<0xA0).contains(scalar.value) ? "?" : String(scalar)
    }
    return safe.joined()
}

/// The same in quotes.
func quoted(_ text: String) -> String { "\"\(printable(text))\"" }
