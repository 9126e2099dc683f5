// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import CLinuxBlock
internal import Glibc
internal import LinuxIO

/// A thin volume of LVM, as the kernel describes it.
struct ThinVolume: Sendable {
    let chunks: ThinChunks

    /// Chunks that are not zeroed are written as a whole, and so are the unit of transfer, which has
    /// to fit in one request of the network.
    static let largestUnit = 1 << 20

    /// Asks what a device is.
    ///
    /// `nil` where it is no thin volume, or one on an origin outside of the pool: what such a one
    /// gives back does not read as zeros, but as the origin.
    ///
    /// - Parameters:
    ///   - number: the device's (`st_rdev`).
    ///   - name: what the user calls it.
    ///   - view: where the machine tells about its devices.
    /// - Throws: for a thin volume whose chunks cannot be told.
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
        // Without the table it is not known whether chunks are zeroed.
        guard
            let size = readSmallFile("\(directory)/queue/discard_granularity")
                .flatMap({ Int($0) }), size > 0
        else {
            throw IOError(name, "open", reason: "the chunks of its thin pool cannot be told")
        }
        chunks = ThinChunks(size: size, areZeroed: false)
    }
}
