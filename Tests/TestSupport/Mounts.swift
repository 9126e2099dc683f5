// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// A small file system in memory, unmounted with this object.
package final class TemporaryFileSystem: Sendable {
    package let path: String
    private let scratch: ScratchDirectory

    /// Mounts a tmpfs; needs root.
    ///
    /// - Parameter size: how much fits, in bytes.
    /// - Throws: when it cannot be mounted.
    package init(size: Int) throws {
        scratch = try ScratchDirectory()
        path = scratch.path
        try must("mount", "-t", "tmpfs", "-o", "size=\(size)", "tmpfs", path)
    }

    // Lazily: a file on it may be open for a moment longer than this object lives.
    deinit { _ = try? must("umount", "--lazy", path) }
}

/// A file system of its own on a loop device, unmounted with this object.
package final class LoopMount: Sendable {
    package let path: String
    package let loop: LoopDevice
    private let scratch: ScratchDirectory

    /// Makes a file system and mounts it; needs root.
    ///
    /// - Parameters:
    ///   - size: of the device, in bytes.
    ///   - make: the command that makes the file system; the device is added to it.
    ///   - options: of mount(8).
    /// - Throws: when a command fails.
    package init(
        size: Int = 64 << 20, make: [String] = ["mkfs.ext4", "-q"], options: String = "defaults"
    ) throws {
        scratch = try ScratchDirectory()
        path = scratch.path
        loop = try LoopDevice(size: size)
        try must(make + [loop.path])
        try must("mount", "-o", options, loop.path, path)
    }

    /// Unmounts it, and waits for up to a minute until nothing has the device mounted.
    ///
    /// A program that another test has started in a mount namespace of its own has a copy of the
    /// mount until it ends.
    package func unmount() throws {
        // A child of another test has a copy of this process's open files until it runs its program.
        if try !becomesTrue({ try run("umount", path).status == 0 }) { try must("umount", path) }
        let deadline = ContinuousClock.now + .seconds(60)
        while true {
            do throws(Errno) {
                _ = try OwnedDescriptor.open(loop.path, flags: O_RDONLY | O_EXCL)
                return
            } catch {
                guard ContinuousClock.now < deadline else { throw error }
                usleep(20_000)
            }
        }
    }

    // Lazily: a file on it may be open for a moment longer than this object lives.
    deinit { _ = try? must("umount", "--lazy", path) }
}

/// An ext4 that journals its data, and so has no direct I/O: with O_DIRECT it goes through the page
/// cache all the same, and statx(2) says so.
package func journalledMount() throws -> LoopMount {
    try LoopMount(options: "data=journal")
}
