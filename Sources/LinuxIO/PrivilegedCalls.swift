// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import Synchronization
internal import SystemPackage

/// System calls that need capabilities, which this process may have dropped.
///
/// The helper makes them: an earlier forked process that keeps the capabilities. Without a helper
/// this process makes the calls itself, and they fail if it lacks the capabilities.
package enum PrivilegedCalls {
    /// A socket to the helper; -1 without a helper.
    private static let helper = Atomic<Int32>(-1)

    /// Starts the helper, which ends with this process.
    ///
    /// The caller must not have started other threads.
    ///
    /// - Returns: `false` if the helper could not be started.
    package static func startHelper() -> Bool {
        guard !hasHelper else { return true }
        let socket = clb_start_helper()
        helper.store(socket, ordering: .releasing)
        return socket >= 0
    }

    package static var hasHelper: Bool { helper.load(ordering: .acquiring) >= 0 }

    /// Writes back and drops the page cache of a block device.
    ///
    /// The corresponding C function is `ioctl` with `BLKFLSBUF`, which needs CAP_SYS_ADMIN.
    ///
    /// - Returns: -1 with `errno` on failure.
    package static func flushBuffers(_ file: Int32) -> Int32 {
        let socket = helper.load(ordering: .acquiring)
        return socket < 0 ? clb_flush_buffers(file) : clb_help(socket, clb_helper_flush, file)
    }

    /// Makes the kernel read the partition table of a disk again.
    ///
    /// The corresponding C function is `ioctl` with `BLKRRPART`, which needs CAP_SYS_ADMIN.
    ///
    /// - Returns: -1 with `errno` on failure.
    package static func rereadPartitions(_ file: Int32) -> Int32 {
        let socket = helper.load(ordering: .acquiring)
        return socket < 0 ? clb_reread_partitions(file) : clb_help(socket, clb_helper_reread, file)
    }

    /// Gets the table of a device-mapper device; see `clb_ask_mapper`.
    ///
    /// The corresponding C function is `ioctl` with `DM_TABLE_STATUS`, which needs CAP_SYS_ADMIN.
    ///
    /// - Returns: -1 with `errno` on failure.
    package static func getMapperTable(
        _ control: Int32, of device: UInt64, into memory: UnsafeMutableRawBufferPointer,
        count: inout UInt32
    ) -> Int32 {
        let socket = helper.load(ordering: .acquiring)
        let (base, size) = (memory.baseAddress, UInt32(clamping: memory.count))
        guard socket >= 0 else {
            return clb_ask_mapper(clb_ioctl, control, nil, device, true, base, size, &count)
        }
        return clb_help_with_table(socket, control, device, base, size, &count)
    }

    /// The open files of one process.
    package struct OpenFiles: Sendable {
        /// The target of /proc/PID/ns/mnt; `nil` if the helper could not read it.
        package var mountNamespace: String?
        /// The targets of the links in /proc/PID/fd that are paths.
        package var paths: [String]
        /// Those that are open for writing.
        package var writtenPaths: [String]
    }

    /// Most bytes to read of the helper's list.
    private static let limit = 64 << 20

    /// Lists the open files of all processes, by process id; `nil` without a helper.
    ///
    /// The kernel shows the files of other users' processes, and of processes with more
    /// capabilities, only with CAP_SYS_PTRACE; see proc_pid_fd(5).
    package static func openFiles() -> [String: OpenFiles]? {
        let socket = helper.load(ordering: .acquiring)
        guard socket >= 0 else { return nil }
        let end = clb_help_with_processes(socket)
        guard end >= 0 else { return nil }
        let file = OwnedDescriptor(owning: end)
        let bytes = readAll(file)
        var processes: [String: OpenFiles] = [:]
        var words: [String] = []
        for word in bytes.split(separator: 0, omittingEmptySubsequences: false) {
            guard word.isEmpty else {
                words.append(String(decoding: word, as: UTF8.self))
                continue
            }
            if words.count >= 2 {
                var files = OpenFiles(
                    mountNamespace: words[1] == "?" ? nil : words[1], paths: [], writtenPaths: [])
                for index in stride(from: 3, to: words.count, by: 2) {
                    files.paths.append(words[index])
                    if words[index - 1] == "w" { files.writtenPaths.append(words[index]) }
                }
                processes[words[0]] = files
            }
            words = []
        }
        return processes
    }

    private static func readAll(_ file: borrowing OwnedDescriptor) -> [UInt8] {
        let descriptor = file.rawValue
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 64 << 10)
        while bytes.count < limit {
            let size = piece.count
            guard
                let count = try? retryingInterrupts({ read(descriptor, &piece, size) }), count > 0
            else { break }
            bytes += piece[..<count]
        }
        return bytes
    }
}
