// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Logging
internal import Synchronization

/// Logs events that clients can cause at any rate, at a bounded rate.
///
/// The first of several similar events is logged at once, or the first few of each minute. The
/// others are counted, and one line a minute reports their count and the metadata of the last one.
final class BoundedLog: Sendable {
    /// Events with equal keys share a line.
    private struct Key: Hashable {
        var event: String
        var network: String
        var client: String?
        var status: Int?
    }
    private struct Entry {
        var start: ContinuousClock.Instant
        /// Events since `start` that were logged at once, without the one that began the entry.
        var logged = 0
        /// Events since `start` that were not logged.
        var count = 0
        var level: Logger.Level
        var metadata: Logger.Metadata
    }
    private let entries = Mutex<[Key: Entry]>([:])
    private let logger: Logger
    private let interval: Duration

    /// Kinds of events that are counted at once; all further kinds share one key.
    ///
    /// This bounds the lines a minute, however many addresses send requests.
    private static let limit = 64

    init(_ logger: Logger, interval: Duration = .seconds(60)) {
        self.logger = logger
        self.interval = interval
    }

    /// - Parameters:
    ///   - address: of the client, without a port.
    ///   - burst: events that are logged at once before others are only counted.
    func note(
        _ event: String, _ level: Logger.Level, from address: String, client: String?,
        status: Int? = nil, burst: Int = 1, _ metadata: Logger.Metadata,
        now: ContinuousClock.Instant = .now
    ) {
        flush(now: now)
        var metadata = metadata
        if let client { metadata["client"] = "\(client)" }
        if let status { metadata["status"] = "\(status)" }
        let isLogged = entries.withLock { entries in
            var key = Key(
                event: event, network: AuthThrottle.network(of: address), client: client,
                status: status)
            if entries[key] == nil, entries.count >= Self.limit {
                key = Key(event: event, network: "others")
            }
            if let entry = entries[key] {
                guard entry.logged >= burst - 1 else {
                    entries[key]?.logged += 1
                    return true
                }
                entries[key]?.count += 1
                entries[key]?.metadata = metadata
                return false
            }
            entries[key] = Entry(start: now, level: level, metadata: metadata)
            return true
        }
        if isLogged { logger.log(level: level, "\(event)", metadata: metadata) }
    }

    func flush(now: ContinuousClock.Instant = .now) {
        log { now - $0.start >= self.interval }
    }

    func close() { log { _ in true } }

    private func log(_ isDue: (Entry) -> Bool) {
        let due = entries.withLock { entries in
            let due = entries.filter { isDue($0.value) }
            for (key, entry) in due {
                // While events continue, the next line follows one interval later.
                entries[key] =
                    entry.count == 0
                    ? nil
                    : Entry(
                        start: entry.start + interval, level: entry.level,
                        metadata: entry.metadata)
            }
            return due
        }
        for (key, entry) in due where entry.count > 0 {
            var metadata = entry.metadata
            metadata["count"] = "\(entry.count)"
            logger.log(level: entry.level, "\(key.event)", metadata: metadata)
        }
    }
}
