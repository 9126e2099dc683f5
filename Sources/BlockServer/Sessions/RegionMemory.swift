// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO
internal import WireProtocol

extension Problem {
    /// A temporary shortage: other requests give memory back.
    static var noMemory: Problem {
        Problem(
            .busy, status: 503, "The server is out of memory",
            detail: "the server has not enough memory at the moment")
    }
}

/// The thread's memory, or an allocation of its own if a region of many MiB needs more.
struct RegionMemory: ~Copyable {
    private let own: AlignedBuffer?
    let bytes: UnsafeMutableRawBufferPointer

    init(_ memory: UnsafeMutableRawBufferPointer, atLeast count: Int) throws(Problem) {
        guard count > memory.count else {
            own = nil
            bytes = memory
            return
        }
        guard let buffer = AlignedBuffer(ifAvailable: count) else { throw .noMemory }
        bytes = buffer.bytes
        own = consume buffer
    }
}

/// Remembers the last run of data that the device reported.
struct DataRun {
    private var run: ByteRange?
    private var isKnown = false

    /// Whether a range may hold nonzero bytes.
    mutating func overlaps(
        _ range: ByteRange, of device: any BlockDevice
    ) throws(IOError) -> Bool {
        if !isKnown || (run.map { $0.end <= range.offset } ?? false) {
            run = try device.nextData(from: range.offset)
            isKnown = true
        }
        return run?.overlaps(range) ?? false
    }
}
