// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock

/// Lets this process end while one of its threads waits for a block device that does not answer.
///
/// The last close of a block device waits, regardless of signals, for pages that are being read
/// (`blkdev_flush_mapping` in the kernel's block/bdev.c). A process that exits would wait there,
/// and so would its parent. Another process therefore keeps the device open and stays behind.
package final class DeviceKeeper: Sendable {
    private let pipe: OwnedDescriptor

    /// Starts the other process, which ends after this object or process, as soon as the devices
    /// answer.
    ///
    /// It is `nil` if the system refuses a process.
    ///
    /// - Parameter numbers: `st_rdev`; only descriptors with `O_NONBLOCK` are kept, which probing
    ///   opens.
    package init?(_ numbers: [UInt64]) {
        let end = numbers.withUnsafeBufferPointer { clb_keep_open($0.baseAddress, $0.count) }
        guard end >= 0 else { return nil }
        pipe = OwnedDescriptor(owning: end)
    }
}
