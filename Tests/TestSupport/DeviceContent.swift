// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import CLinuxBlock
internal import Glibc
package import LinuxIO

extension BlockDevice {
    /// All that the device holds.
    package func content() throws(IOError) -> [UInt8] {
        var result: [UInt8] = []
        let buffer = AlignedBuffer(count: 1 << 20)
        while result.count < geometry.size {
            let length = min(buffer.count, geometry.size - result.count)
            let bytes = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<length])
            try read(into: bytes, at: result.count)
            result += bytes
        }
        return result
    }

    /// Writes bytes that need not be aligned in memory.
    package func write(_ bytes: [UInt8], at offset: Int) throws(IOError) {
        let buffer = AlignedBuffer(count: max(1, bytes.count))
        buffer.bytes.copyBytes(from: bytes)
        try write(UnsafeRawBufferPointer(rebasing: buffer.bytes[..<bytes.count]), at: offset)
    }
}

extension [UInt8] {
    /// What a file or device holds.
    ///
    /// - Parameters:
    ///   - path: the file's path.
    ///   - limit: how many bytes at most.
    /// - Throws: what open(2) and read(2) say.
    package init(contentsOf path: String, count limit: Int = .max) throws {
        let file = try OwnedDescriptor.open(path, flags: O_RDONLY)
        self.init()
        var chunk = [UInt8](repeating: 0, count: Swift.min(limit, 1 << 20))
        while count < limit {
            let offset = count
            let read = try chunk.withUnsafeMutableBytes {
                try file.readOnce(into: $0, at: offset)
            }
            if read == 0 { break }
            append(contentsOf: chunk[..<Swift.min(read, limit - offset)])
        }
    }
}

/// How many pages of a file or block device are in the page cache.
///
/// The device must be open elsewhere: the kernel forgets its pages with its last user.
package func cachedPages(of path: String) throws -> Int {
    let file = try OwnedDescriptor.open(path, flags: O_RDONLY)
    var pages: UInt64 = 0
    _ = try retryingInterrupts { clb_cached_pages(file.rawValue, 0, UInt64(Int64.max), &pages) }
    return Int(pages)
}

/// Tries a claim that other tests and programs may disturb, up to five times.
///
/// Programs that look at all devices of the machine cache pages of devices that are not theirs, and the
/// number of a loop device that is detached goes to the next one that is attached. What blkferry
/// itself does wrong is there each time.
///
/// - Parameter claim: does what is claimed, and looks whether it holds.
/// - Returns: whether it was true once.
package func holdsUndisturbed(_ claim: () throws -> Bool) rethrows -> Bool {
    for attempt in 1...5 {
        if try claim() { return true }
        usleep(UInt32(attempt) * 200_000)
    }
    return false
}
