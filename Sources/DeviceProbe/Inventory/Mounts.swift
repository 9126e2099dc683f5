// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO

/// A mounted file system, from a line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
struct Mount: Hashable, Sendable {
    let id: Int
    /// `st_dev` of its files; not a block device's number for btrfs, NFS and similar.
    let device: UInt64
    let point: String
    let isReadOnly: Bool
    let type: String
    /// Usually the path of the device.
    let source: KernelPath
    private let superOptions: [KernelPath]

    init?(line: ArraySlice<UInt8>) {
        // Splits bytes: as characters, a combining mark at the start of a source would hide a space.
        let parts = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        let fields = parts.map { String(decoding: $0, as: UTF8.self) }
        // A dash ends the optional fields.
        guard fields.count >= 10, let dash = fields[6...].firstIndex(of: "-"),
            dash + 3 < fields.count, let id = Int(fields[0]),
            let device = deviceNumber(fields[2])
        else { return nil }
        self.id = id
        self.device = device
        point = KernelPath(octalEscapes: parts[4]).text
        isReadOnly = fields[5].split(separator: ",").contains("ro")
        type = fields[dash + 1]
        source = KernelPath(octalEscapes: parts[dash + 2])
        superOptions = parts[dash + 3].split(separator: UInt8(ascii: ",")).map {
            KernelPath(octalEscapes: $0)
        }
    }

    /// All mounts that a process sees, in the order of mounting; none if it may not be read.
    static func all(of process: String = "self", in view: SystemView) -> [Mount] {
        lines(ofFile: "\(view.proc)/\(process)/mountinfo").compactMap { Mount(line: $0) }
    }

    /// Paths of the devices for the log and the real-time data of XFS.
    var extraDevices: [KernelPath] {
        superOptions.compactMap { option in
            for key in ["logdev=", "rtdev="] where option.bytes.starts(with: key.utf8) {
                return KernelPath(option.bytes.dropFirst(key.utf8.count))
            }
            return nil
        }
    }
}

/// The lines of a small file of procfs; none if it cannot be read.
private func lines(ofFile file: String) -> [ArraySlice<UInt8>] {
    guard let content = try? smallFileBytes(file) else { return [] }
    return content.split(separator: UInt8(ascii: "\n"))
}

/// Paths that the kernel swaps to (proc_swaps(5)), which it escapes as in mountinfo.
func swapPaths(in view: SystemView) -> [KernelPath] {
    let blanks = [UInt8(ascii: " "), UInt8(ascii: "\t")]
    return lines(ofFile: "\(view.proc)/swaps").dropFirst().compactMap { line in
        line.split { blanks.contains($0) }.first.map { KernelPath(octalEscapes: $0) }
    }
}

extension KernelPath {
    /// Decodes the kernel's `\040` for a space and similar (`mangle_path` in fs/seq_file.c).
    init(octalEscapes text: ArraySlice<UInt8>) {
        var decoded: [UInt8] = []
        var rest = text
        while let byte = rest.popFirst() {
            let digits = rest.prefix(3)
            if byte == UInt8(ascii: "\\"), digits.count == 3,
                let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 8)
            {
                decoded.append(value)
                rest = rest.dropFirst(3)
            } else {
                decoded.append(byte)
            }
        }
        self.init(decoded)
    }
}
