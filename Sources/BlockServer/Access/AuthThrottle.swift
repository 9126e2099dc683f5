// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import Synchronization
internal import WireProtocol

/// Delays the response to a wrong token.
///
/// The delay starts at half a second and doubles with each wrong token up to half a minute. An
/// address is forgotten after ten minutes without a wrong token. While an address waits, the server
/// checks no other token from it: otherwise a client could guess on any number of connections at
/// once.
final class AuthThrottle: Sendable {
    private struct Entry {
        var count: Int
        var last: ContinuousClock.Instant
        /// When the response to the last wrong token is due.
        var end: ContinuousClock.Instant
    }
    private let entries = Mutex<[String: Entry]>([:])
    private let first: Duration
    private let memory: Duration
    private static let longest = Duration.seconds(30)
    private static let limit = 4096

    init(first: Duration = .milliseconds(500), memory: Duration = .seconds(600)) {
        self.first = first
        self.memory = memory
    }

    /// Counts a wrong token and returns the delay of its response; `peer` is an address without a
    /// port.
    func wait(of peer: String, now: ContinuousClock.Instant = .now) -> Duration {
        let key = Self.network(of: peer)
        return entries.withLock { entries in
            if let entry = entries[key], now - entry.last > memory { entries[key] = nil }
            if entries.count >= Self.limit && entries[key] == nil { makeRoom(&entries, now) }
            let count = (entries[key]?.count ?? 0) + 1
            let wait = min(first * (1 << min(count - 1, 16)), Self.longest)
            entries[key] = Entry(count: count, last: now, end: now + wait)
            return wait
        }
    }

    /// The rest of the delay; `peer` is an address without a port.
    func remaining(of peer: String, now: ContinuousClock.Instant = .now) -> Duration? {
        let key = Self.network(of: peer)
        let end = entries.withLock { $0[key]?.end }
        return end.flatMap { $0 > now ? $0 - now : nil }
    }

    var count: Int { entries.withLock { $0.count } }

    private func makeRoom(_ entries: inout [String: Entry], _ now: ContinuousClock.Instant) {
        entries = entries.filter { now - $0.value.last <= memory }
        guard entries.count >= Self.limit else { return }
        if let oldest = entries.min(by: { $0.value.last < $1.value.last }) {
            entries[oldest.key] = nil
        }
    }

    /// The part of an address that a client cannot change at will: the first 64 bits of an IPv6
    /// address.
    static func network(of address: String) -> String {
        var bytes = in6_addr()
        guard inet_pton(AF_INET6, address, &bytes) == 1 else { return address }
        return withUnsafeBytes(of: bytes) { bytes in
            // IPv4-mapped addresses (RFC 4291, section 2.5.5.2) count whole.
            bytes.prefix(10).allSatisfy { $0 == 0 } ? address : hexadecimal(bytes.prefix(8))
        }
    }
}
