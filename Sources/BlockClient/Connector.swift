// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Makes a transport's connections in place of libcurl, which then only speaks HTTP over them.
///
/// Any number of threads may use it at once.
protocol Connector: Sendable {
    /// Makes one.
    ///
    /// - Parameter isOver: whether it is still wanted; asked several times a second.
    /// - Returns: a stream socket, on which the server waits for a request.
    /// - Throws: why there is none.
    func connect(unless isOver: () -> Bool) throws(HTTPError) -> Int32

    /// Ends one, and returns soon.
    func disconnect(_ socket: Int32)

    /// A figure that grows with every byte that comes or goes, also of those that are under way.
    func activity(of socket: Int32) -> UInt64
}
