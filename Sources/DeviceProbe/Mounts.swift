// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO

/// A mounted file system, a line of /proc/PID/mountinfo.
///
/// Source: proc_pid_mountinfo(5).
struct Mount: Hashable, Sendable {
    let id: Int
    /// `st_dev` of files in it; a number of no block device for btrfs, NFS and the like.
    let device: UInt64
    let point: String
    let isReadOnly: Bool
    let type: String
    /// Mostly the path of the device.
    let source: String
    /// Options of the file system itself.
    let superOptions: [String]

    /// Reads one line; `nil` when it is none.
    init?(line: some StringProtocol) {
        let fields = line.split(separator: " ", omittingEmptySubsequences: false)
        // A variable number of optional fields ends with a dash.
        guard fields.count >= 10, let dash = fields[6...].firstIndex(of: "-"),
            dash + 3 < fields.count, let id = Int(fields[0]),
            let device = deviceNumber(fields[2])
        else { return nil }
        self.id = id
        self.device = device
        point = decodeOctalEscapes(fields[4])
        isReadOnly = fields[5].split(separator: ",").contains("ro")
        type = String(fields[dash + 1])
        source = decodeOctalEscapes(fields[dash + 2])
        superOptions = fields[dash + 3].split(separator: ",").map { decodeOctalEscapes($0) }
    }

    /// All mounts that a process sees.
    ///
    /// - Parameters:
    ///   - process: its number, or `self`.
    ///   - view: where /proc is.
    /// - Returns: in the order of mounting; none when the process is gone or somebody else's.
    static func all(of process: String = "self", in view: SystemView) -> [Mount] {
        (readSmallFile("\(view.proc)/\(process)/mountinfo") ?? "")
            .split(separator: "\n").compactMap { Mount(line: $0) }
    }

    /// Paths of the devices that XFS keeps its log and its real-time data on.
    var extraDevices: [String] {
        superOptions.compactMap { option in
            for key in ["logdev=", "rtdev="] where option.hasPrefix(key) {
                return String(option.dropFirst(key.count))
            }
            return nil
        }
    }
}

/// The paths of the files and devices that the kernel swaps to.
///
/// Source: proc_swaps(5); the path is escaped as in mountinfo.
func swapPaths(in view: SystemView) -> [String] {
    (readSmallFile("\(view.proc)/swaps") ?? "").split(separator: "\n").dropFirst()
        .compactMap { $0.split(whereSeparator: \.isWhitespace).first }
        .map { decodeOctalEscapes($0) }
}

/// Decodes the kernel's `\040` for a space and the like (`mangle_path` in fs/seq_file.c).
func decodeOctalEscapes(_ text: some StringProtocol) -> String {
    let bytes = Array(text.utf8)
    var decoded: [UInt8] = []
    var index = 0
    while index < bytes.count {
        let digits = bytes[index...].dropFirst().prefix(3)
        if bytes[index] == UInt8(ascii: "\\"), digits.count == 3,
            let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 8)
        {
            decoded.append(value)
            index += 4
        } else {
            decoded.append(bytes[index])
            index += 1
        }
    }
    return String(decoding: decoded, as: UTF8.self)
}
