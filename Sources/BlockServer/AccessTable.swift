// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
internal import Glibc
internal import NIOHTTP1
internal import Synchronization
internal import WireProtocol

/// Who may use the server: the tokens it takes, as digests.
///
/// What is looked up takes the same time whichever token is shown, right or wrong: it is hashed, and
/// its digest compared with all of them, each to its end.
final class AccessTable: Sendable {
    private struct Holder: Sendable {
        /// Of the token; `nil` where only a certificate will do.
        let digest: [UInt8]?
        let grant: Grant
    }
    /// `nil` where no token is needed.
    private let holders = Mutex<[Holder]?>(nil)

    /// What a request shows.
    enum Verdict: Hashable, Sendable {
        case granted(Grant)
        /// No token.
        case missing
        /// A token that nobody has, or no token at all in the place of one.
        case wrong
    }

    /// - Parameter tokens: `nil` where no token is needed.
    /// - Throws: when libcrypto has no SHA-256.
    init(_ tokens: [TokenEntry]?) throws(DigestError) { try replace(tokens) }

    /// Takes other tokens from now on.
    ///
    /// - Parameter tokens: `nil` where no token is needed.
    /// - Throws: when libcrypto has no SHA-256; then all is as before.
    func replace(_ tokens: [TokenEntry]?) throws(DigestError) {
        var new: [Holder]?
        if let tokens {
            new = []
            for entry in tokens {
                let digest = try entry.token.map { token throws(DigestError) in
                    try sha256(of: Array(token.utf8))
                }
                new?.append(Holder(digest: digest, grant: Grant(entry)))
            }
        }
        holders.withLock { $0 = new }
    }

    /// Judges a request by its `Authorization` header (RFC 6750, section 2.1), and by who sent it.
    ///
    /// - Parameters:
    ///   - headers: of the request.
    ///   - certified: the name in the client's certificate, where it had to show one.
    /// - Returns: what the client may do. A certificate's name that has a line of its own needs no
    ///   token.
    func judge(_ headers: HTTPHeaders, certified: String? = nil) -> Verdict {
        guard let holders = holders.withLock({ $0 }) else {
            guard let certified else { return .granted(.everything) }
            return .granted(Grant(name: certified, access: .readWrite, selectors: nil))
        }
        if let certified, let holder = holders.first(where: { $0.grant.name == certified }) {
            return .granted(holder.grant)
        }
        let values = headers["Authorization"]
        guard let value = values.first else { return .missing }
        let words = value.split(separator: " ", omittingEmptySubsequences: true)
        guard values.count == 1, words.count == 2, words[0].lowercased() == "bearer",
            let digest = try? sha256(of: Array(words[1].utf8))
        else { return .wrong }
        var grant: Grant?
        for holder in holders {
            guard let known = holder.digest, areEqualInConstantTime(known, digest) else {
                continue
            }
            grant = holder.grant
        }
        return grant.map { .granted($0) } ?? .wrong
    }
}

/// How long those who showed a wrong token wait for the answer.
///
/// Half a second, and twice as long each time, up to half a minute; after ten minutes without one
/// it is forgotten.
final class Penalties: Sendable {
    private struct Entry {
        var count: Int
        var last: ContinuousClock.Instant
    }
    private let entries = Mutex<[String: Entry]>([:])
    private let first: Duration
    private let memory: Duration
    private static let longest = Duration.seconds(30)
    /// Addresses that are remembered at once.
    private static let limit = 4096

    /// - Parameters:
    ///   - first: the shortest wait.
    ///   - memory: after which an address is forgotten.
    init(first: Duration = .milliseconds(500), memory: Duration = .seconds(600)) {
        self.first = first
        self.memory = memory
    }

    /// Counts a wrong token.
    ///
    /// - Parameters:
    ///   - peer: the address without a port.
    ///   - now: the time.
    /// - Returns: how long the answer is to wait.
    func wait(of peer: String, now: ContinuousClock.Instant = .now) -> Duration {
        let key = Self.network(of: peer)
        let count = entries.withLock { entries in
            if let entry = entries[key], now - entry.last > memory { entries[key] = nil }
            if entries.count >= Self.limit && entries[key] == nil { makeRoom(&entries, now) }
            entries[key, default: Entry(count: 0, last: now)].count += 1
            entries[key]?.last = now
            return entries[key]?.count ?? 1
        }
        return min(first * (1 << min(count - 1, 16)), Self.longest)
    }

    /// How many are remembered, for tests.
    var count: Int { entries.withLock { $0.count } }

    private func makeRoom(_ entries: inout [String: Entry], _ now: ContinuousClock.Instant) {
        entries = entries.filter { now - $0.value.last <= memory }
        guard entries.count >= Self.limit else { return }
        if let oldest = entries.min(by: { $0.value.last < $1.value.last }) {
            entries[oldest.key] = nil
        }
    }

    /// What one asker can change at will counts as one: the last 64 bits of an IPv6 address.
    static func network(of address: String) -> String {
        var bytes = in6_addr()
        guard inet_pton(AF_INET6, address, &bytes) == 1 else { return address }
        return withUnsafeBytes(of: bytes) { bytes in
            // IPv4 within IPv6 (RFC 4291, section 2.5.5.2) counts whole.
            bytes.prefix(10).allSatisfy { $0 == 0 } ? address : hexadecimal(bytes.prefix(8))
        }
    }
}
