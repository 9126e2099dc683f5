// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

/// Limits of this version, so that neither side allocates memory for what the other one claims.
///
/// A server reports its own in `GET /v1`.
package enum Limits {
    /// Bytes in one compare request.
    package static let window = BlockLayout.longestWindow

    /// Bytes of data in one read or write.
    package static let payload = 2 << 20

    /// Entries in the table of one read or write.
    package static let extents = 8192

    /// Data runs in one answer of a map.
    package static let runs = 1024

    /// Bytes of a request's body; more than a payload with its table and digest.
    package static let body = payload + (256 << 10)

    /// Bytes of a body of JSON.
    package static let json = 256 << 10

    /// Bytes of an answer; fits the digests of a window with small blocks, and a list of thousands
    /// of devices.
    package static let answer = 16 << 20

    /// Bytes; no method has a longer digest.
    package static let digest = 64

    /// Blocks in a window, which limits the answer to a compare request.
    package static let blocks = window / BlockLayout.blockSizes.lowerBound
}

package enum MediaType {
    package static let json = "application/json"
    /// RFC 9457.
    package static let problem = "application/problem+json"
    /// The frames of compare, read and write; short, because every request has it.
    package static let frames = "application/x-blkferry"
    package static let bytes = "application/octet-stream"
}

package struct WireError: Error, Hashable, Sendable {
    /// One line.
    package var reason: String
    package init(_ reason: String) { self.reason = reason }
}

extension WireError: CustomStringConvertible {
    package var description: String { reason }
}
