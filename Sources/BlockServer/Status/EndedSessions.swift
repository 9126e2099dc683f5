// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import WireProtocol

/// What the sessions that have ended did: the last ones, and sums by export.
///
/// They are in memory only, and end with the server.
struct EndedSessions: Sendable {
    struct Run: Sendable {
        /// What decides who sees it: without its anchor, which would keep a descriptor open, and
        /// without partitions, of which a table can have thousands.
        var found: ExportTable.Found
        var mode: SessionRequest.Mode
        /// The client's address with its port.
        var client: String
        /// Seconds since 1970.
        var began: Int
        var duration: Duration
        var size: Int
        var counts: Session.Counts
        /// The name of the undo journal.
        var undo: String?
        var end: String

        init(_ session: Session, end: String) {
            found = session.permission.found
            (found.anchor, found.rivals) = (nil, [])
            let signatures = found.description?.entry.content?.found ?? []
            found.description?.entry.content = .signatures(
                signatures.filter { $0.usage != .partitionTable })
            mode = session.mode
            client = session.peer
            began = session.began
            duration = ContinuousClock().now - session.start
            size = session.record.size
            counts = session.counts
            undo = session.undo?.journal
            self.end = end
        }
    }

    struct Key: Hashable, Sendable {
        var export: ByteString
        var mode: SessionRequest.Mode
    }

    struct Sum: Sendable {
        var found: ExportTable.Found
        var counts = Session.Counts()
        /// Sessions, by how they ended.
        var ends: [String: Int] = [:]
        /// Seconds since 1970 at which a session last ended with `committed`; `nil` for never.
        var lastComplete: Int?
        /// Sessions of all exports that had ended before the last one of this export.
        var age = 0
    }

    /// The oldest first.
    private(set) var runs: [Run] = []
    private(set) var sums: [Key: Sum] = [:]
    private var count = 0

    private static let keptRuns = 50
    /// A directory may have any number of images.
    private static let keptSums = 512

    mutating func add(_ run: Run) {
        count += 1
        if runs.count == Self.keptRuns { runs.removeFirst() }
        runs.append(run)
        let key = Key(export: ByteString(run.found.name), mode: run.mode)
        if sums[key] == nil, sums.count >= Self.keptSums,
            let oldest = sums.min(by: { $0.value.age < $1.value.age })
        {
            sums[oldest.key] = nil
        }
        var sum = sums[key] ?? Sum(found: run.found)
        sum.found = run.found
        sum.counts += run.counts
        sum.ends[run.end, default: 0] += 1
        if run.end == "committed" { sum.lastComplete = time(nil) }
        sum.age = count
        sums[key] = sum
    }
}
