// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import CLinuxBlock
internal import Glibc
internal import LinuxIO

/// The chunks of a thin volume, as the kernel reports them.
struct ThinVolume: Sendable {
    let chunks: ThinChunks

    /// Bytes: chunks that are not zeroed are the unit of transfer, which must fit in one network
    /// request.
    static let largestUnit = 1 << 20

    /// Reads the chunks of the thin volume with an `st_rdev`; `nil` for other devices.
    ///
    /// Also `nil` for a thin volume on an external origin: its discarded chunks read as the origin,
    /// not as zeros.
    ///
    /// - Throws: if the chunks of a thin volume cannot be determined.
    init?(_ number: UInt64, name: String, view: SystemView) throws(IOError) {
        let directory = "\(view.sys)/dev/block/\(clb_major(number)):\(clb_minor(number))"
        let slaves = namesInDirectory("\(directory)/slaves")
        guard let slave = slaves.first, slaves.count == 1 else { return nil }
        let pool = "\(view.sys)/class/block/\(slave)"
        guard let uuid = readSmallFile("\(pool)/dm/uuid"), uuid.hasPrefix("LVM-"),
            uuid.hasSuffix("-tpool")
        else { return nil }
        let number = readSmallFile("\(pool)/dev").flatMap { deviceNumber($0) }
        if let chunks = number.flatMap({ MapperTable.Target(of: $0, view)?.chunks }) {
            self.chunks = chunks
            return
        }
        // Without the table it is unknown whether chunks are zeroed.
        guard let size = readInteger("\(directory)/queue/discard_granularity"),
            (1...1 << 30).contains(size)
        else {
            throw IOError(name, "open", reason: "the chunks of its thin pool cannot be determined")
        }
        chunks = ThinChunks(size: size, areZeroed: false)
    }
}
