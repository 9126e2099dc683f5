// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO

/// Reads a device that may fail or not answer, one range after the other.
///
/// The caller may give a read up, and then starts the next one. Only one thread uses a reader.
package protocol SpotReader: AnyObject {
    /// Starts a read; the one before must have been answered or given up.
    ///
    /// - Parameter range: in units of the device's alignment, except at its end.
    func start(_ range: ByteRange)

    /// Waits for the answer to the last `start`.
    ///
    /// - Parameters:
    ///   - deadline: when to give the read up; `nil` for never.
    ///   - isCancelled: also gives it up.
    func wait(
        until deadline: ContinuousClock.Instant?, unless isCancelled: () -> Bool
    ) -> SpotAnswer

    /// Number of reads that were given up and still have no answer.
    var openReads: Int { get }
}

package enum SpotAnswer {
    /// Valid until the second `start` after this answer.
    case bytes(UnsafeMutableRawBufferPointer)
    case failed(IOError)
    /// The deadline has passed, and the read was given up.
    case late
    /// The read was given up.
    case cancelled
}

/// A local device whose reads another process does.
package protocol SpotReadable: BlockDevice {
    /// - Parameter room: bytes of a range at most.
    /// - Returns: a reader, which needs this device to stay open.
    func spotReader(room: Int) -> any SpotReader
}

extension BlockSpecialFile: SpotReadable {
    package func spotReader(room: Int) -> any SpotReader { ReaderProcess(file, room: room) }
}

extension ImageFile: SpotReadable {
    package func spotReader(room: Int) -> any SpotReader { ReaderProcess(file, room: room) }
}
