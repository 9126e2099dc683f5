// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO
internal import Synchronization

/// Holes of a block device, which the kernel does not report.
extension BlockSpecialFile {
    /// Sets how `nextData` finds the runs that may contain other bytes than zeros.
    ///
    /// - Parameter next: returns the first such run at or after an offset, within the device; `nil`
    ///   if none follows. Several threads call it at once.
    package func reportHoles(by next: @escaping @Sendable (_ offset: Int) -> ByteRange?) {
        nextRun.withLock { $0 = next }
    }

    package func nextData(from offset: Int) throws(IOError) -> ByteRange? {
        if let next = nextRun.withLock({ $0 }) { return next(offset) }
        return offset < geometry.size ? ByteRange(offset, to: geometry.size) : nil
    }

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        guard let next = nextRun.withLock({ $0 }) else {
            return try file.read(into: buffer, at: offset)
        }
        // A window may have holes as well as data. Only the data is read.
        var rest = buffer
        var position = offset
        while !rest.isEmpty {
            let end = position + rest.count
            let run = next(position)
            let zeros = min(run?.offset ?? end, end) - position
            UnsafeMutableRawBufferPointer(rebasing: rest[..<zeros])
                .initializeMemory(as: UInt8.self, repeating: 0)
            let data = UnsafeMutableRawBufferPointer(
                rebasing: rest[zeros..<min((run?.end ?? end) - position, rest.count)])
            if !data.isEmpty { try file.read(into: data, at: position + zeros) }
            position += zeros + data.count
            rest = UnsafeMutableRawBufferPointer(rebasing: rest[(zeros + data.count)...])
        }
    }
}
