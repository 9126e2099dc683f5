// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

/// Notices bytes on their way, those included that only the kernels know of.
///
/// On a slow line the kernel holds megabytes of a body; that they leave it is no silence, though
/// nothing is read or written here for minutes.
struct ActivityWatch {
    private var bytes = -1
    private var acknowledged: UInt64 = 0

    /// Whether anything came or went since the last look.
    ///
    /// - Parameters:
    ///   - bytes: read and written here so far.
    ///   - kernelBytes: those that only the kernels know of.
    /// - Returns: whether there was something new.
    mutating func sees(bytes: Int, kernelBytes: @autoclosure () -> UInt64) -> Bool {
        if bytes != self.bytes {
            self.bytes = bytes
            return true
        }
        let count = kernelBytes()
        guard count != acknowledged else { return false }
        acknowledged = count
        return true
    }

    /// Bytes that the other end has acknowledged and those it has sent.
    ///
    /// The corresponding C function is `getsockopt` with `TCP_INFO`: `tcpi_bytes_acked` and
    /// `tcpi_bytes_received`, at these places in linux/tcp.h since Linux 4.1. The C library's
    /// structure ends before them.
    static func kernelBytes(_ socket: Int32) -> UInt64 {
        let acknowledged = 120
        let received = 128
        return withUnsafeTemporaryAllocation(byteCount: received + 8, alignment: 8) { info in
            var size = socklen_t(info.count)
            guard getsockopt(socket, Int32(IPPROTO_TCP), TCP_INFO, info.baseAddress, &size) == 0,
                Int(size) == info.count
            else { return 0 }
            return info.load(fromByteOffset: acknowledged, as: UInt64.self)
                &+ info.load(fromByteOffset: received, as: UInt64.self)
        }
    }
}
