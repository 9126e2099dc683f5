// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// Tells udev that a block device is being written, and when it has been closed.
///
/// udev processes no event of a disk while the gate holds the lock on it (flock(2)); see
/// https://systemd.io/BLOCK_DEVICE_LOCKING. It ignores locks on devices of the device mapper, md
/// and drbd, and locks on partitions (`udev_get_whole_disk` in systemd's src/udev/udev-util.c).
/// For these, udev/60-blkferry.rules looks for a file with the number of the device, and then tests
/// the lock. The file stays, because a lock ends however its process ends.
package final class UdevNotice: Sendable {
    private let event: String

    /// Call this while the device is locked exclusively; nothing happens without the rights of
    /// root.
    ///
    /// - Parameters:
    ///   - number: `st_rdev`.
    ///   - ignoresLock: whether udev ignores the lock on this device.
    ///   - path: the device file.
    ///   - directory: where the rules look for the file.
    package init(
        _ number: UInt64, ignoresLock: Bool, path: String, sys: String,
        directory: String = "/run/blkferry"
    ) {
        let device = "\(clb_major(number)):\(clb_minor(number))"
        event = "\(sys)/dev/block/\(device)/uevent"
        guard ignoresLock else { return }
        do throws(Errno) {
            let files = "\(directory)/targets"
            for path in [directory, files] {
                do throws(Errno) { _ = try retryingInterrupts { mkdir(path, 0o700) } } catch {
                    guard error == .fileExists else { throw error }
                }
            }
            _ = try OwnedDescriptor.open(
                "\(files)/\(device)", flags: O_WRONLY | O_CREAT | O_NOFOLLOW)
            do throws(Errno) { try requestEvent() } catch {
                // A service has sysfs read-only. udev watches most devices for such a close.
                _ = try OwnedDescriptor.open(path, flags: O_WRONLY)
            }
        } catch {
            // The links under /dev/disk stay as they are.
        }
    }

    /// Events of a locked disk are dropped after some minutes, and not every device is watched.
    deinit { try? requestEvent() }

    private func requestEvent() throws(Errno) {
        let file = try OwnedDescriptor.open(event, flags: O_WRONLY)
        let word: StaticString = "change"
        _ = try file.writeOnce(
            UnsafeRawBufferPointer(start: word.utf8Start, count: word.utf8CodeUnitCount), at: 0)
    }
}

extension KernelDevice {
    var ignoresUdevLock: Bool {
        disk != nil || ["dm-", "md", "drbd"].contains { name.hasPrefix($0) }
    }
}
