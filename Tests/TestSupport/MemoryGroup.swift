// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Foundation
internal import Glibc
internal import Synchronization

/// A control group whose processes have little memory, page cache included; it goes with this object.
package final class MemoryGroup: Sendable {
    private let path: String

    private static let made = Atomic<Int>(0)
    private static let root = "/sys/fs/cgroup"
    /// Whether the memory controller is one of version 2 (the kernel's cgroup-v2.rst), and not of
    /// version 1 (cgroup-v1/memory.rst).
    private static let isUnified = FileManager.default.fileExists(
        atPath: "\(root)/cgroup.controllers")

    /// Whether this process may make them; a trial tells.
    package static let isAvailable = isRoot && (try? MemoryGroup(limit: 64 << 20)) != nil

    /// Makes a group; needs root.
    ///
    /// - Parameter limit: of memory, in bytes.
    /// - Throws: where the machine has no such controller, or not for this process.
    package init(limit: Int) throws {
        let number = Self.made.add(1, ordering: .relaxed).newValue
        let parent = Self.isUnified ? Self.root : "\(Self.root)/memory"
        path = "\(parent)/blkferry-\(getpid())-\(number)"
        if Self.isUnified {
            try Self.put("+memory", in: "\(Self.root)/cgroup.subtree_control")
        }
        try FileManager.default.createDirectory(
            atPath: path, withIntermediateDirectories: false)
        try Self.put(
            "\(limit)", in: "\(path)/\(Self.isUnified ? "memory.max" : "memory.limit_in_bytes")")
    }

    /// The group must be empty; the kernel counts a process out some time after its end.
    deinit {
        for _ in 1...100 where rmdir(path) != 0 { usleep(20_000) }
    }

    private static func put(_ text: String, in file: String) throws {
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: file))
        try handle.write(contentsOf: Data(text.utf8))
        try handle.close()
    }

    /// What goes before a command so that it runs in the group.
    package var prefix: [String] {
        ["sh", "-c", "echo $$ > \"$0\" && exec \"$@\"", "\(path)/cgroup.procs"]
    }
}
