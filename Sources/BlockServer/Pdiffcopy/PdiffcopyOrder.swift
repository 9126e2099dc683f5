// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// The last request of pdiffcopy's client, which shows whether it is about to read or write.
///
/// A client that writes asks for the target's size and then for its digests. A client that reads
/// asks for the source's digests and then, if a block differs, for its size.
struct PdiffcopyOrder: Sendable {
    private enum Last {
        case info(ContinuousClock.Instant)
        case hashes(ContinuousClock.Instant)
    }
    private var last: Last?

    /// A client that writes sends both requests without work in between.
    private static let pushTime = Duration.seconds(5)
    /// A client that reads computes its own digests between the two requests.
    private static let pullTime = Duration.seconds(600)

    mutating func infoAsked() {
        if case .hashes(let time) = last, .now - time < Self.pullTime {
            last = nil
        } else {
            last = .info(.now)
        }
    }

    mutating func hashesAsked() { last = .hashes(.now) }

    /// Whether the client that asks for digests now is about to write; resets the answer.
    mutating func isPush() -> Bool {
        guard case .info(let time) = last else { return false }
        last = nil
        return .now - time < Self.pushTime
    }

    func isExpired() -> Bool {
        switch last {
        case .info(let time): .now - time >= Self.pushTime
        case .hashes(let time): .now - time >= Self.pullTime
        case nil: true
        }
    }
}
