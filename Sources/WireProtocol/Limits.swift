// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// What a message may ask for at most, so that neither side takes memory for what the other claims.
///
/// A server tells its own in `GET /v1`; these are those of this version.
package enum Limits {
    /// Bytes that one compare request may cover.
    package static let window = 16 << 20

    /// Bytes of data in one read or write.
    package static let payload = 2 << 20

    /// Entries in the table of one read or write.
    package static let extents = 8192

    /// Data runs in one answer of a map.
    package static let runs = 1024

    /// Bytes of a request's body: a payload with its table and digest is less.
    package static let body = payload + (256 << 10)

    /// Bytes of a body of JSON.
    package static let json = 256 << 10

    /// Bytes of an answer: all block digests of a window of small blocks under a long digest, and
    /// the list of a machine with thousands of devices.
    package static let answer = 16 << 20

    /// Bytes of a digest: no method has a longer one.
    package static let digest = 64

    /// Blocks in a window: what bounds the answer to a compare request.
    package static let blocks = 32 << 10
}

/// The content types of bodies.
package enum MediaType {
    package static let json = "application/json"
    /// RFC 9457.
    package static let problem = "application/problem+json"
    /// The frames of compare, read and write; short, since it is on every request.
    package static let frames = "application/x-blkferry"
    package static let bytes = "application/octet-stream"
}

/// Why a message cannot be understood.
package struct WireError: Error, Hashable, Sendable {
    /// One line.
    package var reason: String
    package init(_ reason: String) { self.reason = reason }
}

extension WireError: CustomStringConvertible {
    package var description: String { reason }
}
