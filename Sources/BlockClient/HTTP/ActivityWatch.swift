// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

/// Detects bytes in transit, including those that only the kernel knows of.
///
/// On a slow line the kernel holds megabytes of a body. While they leave, the connection is active,
/// although the process reads and writes nothing for minutes.
struct ActivityWatch {
    private var bytes = -1
    private var acknowledged: UInt64 = 0

    /// Whether any byte moved since the last call, read or written here, or counted by the kernel.
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

    /// Returns the bytes that the peer has acknowledged plus those it has sent.
    ///
    /// The corresponding C function is `getsockopt` with `TCP_INFO`. `tcpi_bytes_acked` and
    /// `tcpi_bytes_received` have these offsets in linux/tcp.h since Linux 4.1. The C library's
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

    /// Whether the peer's kernel has not answered the last two retransmissions or keepalives.
    ///
    /// A kernel answers both while its program is busy. If the host is gone, the line is dead or a
    /// NAT has forgotten the connection, nothing answers. `tcpi_retransmits` and `tcpi_probes` have
    /// these offsets in linux/tcp.h. An acknowledgement resets both.
    static func isUnanswered(_ socket: Int32) -> Bool {
        let retransmits = 2
        let probes = 3
        return withUnsafeTemporaryAllocation(byteCount: 8, alignment: 8) { info in
            var size = socklen_t(info.count)
            guard getsockopt(socket, Int32(IPPROTO_TCP), TCP_INFO, info.baseAddress, &size) == 0,
                Int(size) == info.count
            else { return false }
            return info[retransmits] >= 2 || info[probes] >= 2
        }
    }
}
