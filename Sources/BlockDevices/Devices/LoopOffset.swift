// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Detects that a loop device was moved to other bytes of its backing file.
///
/// `LOOP_SET_STATUS64` changes the offset of an open loop device. The device keeps its number and
/// its disk sequence number. A new size limit without a new size leaves the bytes where they are.
extension BlockSpecialFile {
    /// The offset of a loop device, or of the disk of its partition, in bytes; `nil` for other
    /// devices.
    ///
    /// Source: Documentation/ABI/testing/sysfs-block-loop.
    static func loopOffset(_ number: UInt64) -> Int? {
        SystemDevice(number: number).flatMap { ($0.disk ?? $0).integer("loop/offset") }
    }
}
