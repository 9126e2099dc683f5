// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO

/// Makes a transport's connections in place of libcurl, which then only speaks HTTP over them.
///
/// Any number of threads may use it at once.
protocol Connector: Sendable {
    /// Returns a stream socket on which the server waits for a request; polls `isCancelled` several
    /// times a second.
    ///
    /// - Parameter seconds: the limit; `nil` for none, because ssh may ask for a password.
    func connect(
        within seconds: Double?, unless isCancelled: () -> Bool
    ) throws(IOError) -> Int32

    /// Closes a connection without waiting for the peer.
    func disconnect(_ socket: Int32)

    /// A count that grows with every byte in either direction, including bytes in transit.
    func activity(of socket: Int32) -> UInt64
}
