// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import WireProtocol

/// The answer to `GET /v1/status`; see docs/protocol.md.
struct StatusRecord: Codable, Sendable {
    struct Run: Codable, Sendable {
        /// The start of the session's identifier, as in the log; `nil` after its end.
        var session: String?
        var device: String
        var mode: SessionRequest.Mode
        /// The client's address with its port.
        var client: String
        /// Seconds since 1970.
        var began: Int
        var seconds: Double
        /// Bytes of the device when the session began; all further numbers are bytes, too.
        var size: Int
        var compared: Int
        var changed: Int
        var read: Int
        var written: Int
        var zeroed: Int
        /// The end of the part of the device on which the session has worked; `nil` after its end.
        var position: Int?
        /// A digit for each cell of the device, the sum of 1 for compared, 2 for changed, and 4 for
        /// written, zeroed or sent; `nil` after the end.
        var map: String?
        /// The name of the undo journal; `nil` without one, or if nothing was overwritten.
        var undo: String?
        /// How the session has ended, as in the log.
        var end: String?
    }

    /// Of the server.
    var version: String
    /// The sessions that are open, the oldest first.
    var sessions: [Run]
    /// The last sessions that have ended, the latest first.
    var runs: [Run]
}

extension StatusRecord.Run {
    /// A session that is open.
    init(_ session: Session) {
        let map = session.map
        self.init(EndedSessions.Run(session, end: ""))
        self.session = String(session.id.prefix(8))
        (position, self.map, end) = (map.position, map.digits, nil)
    }

    init(_ run: EndedSessions.Run) {
        let counts = run.counts
        self.init(
            device: run.found.name, mode: run.mode, client: run.client, began: run.began,
            seconds: (run.duration / .milliseconds(1)).rounded() / 1000, size: run.size,
            compared: counts.compared, changed: counts.changed, read: counts.read,
            written: counts.written, zeroed: counts.zeroed, undo: run.undo, end: run.end)
    }
}
