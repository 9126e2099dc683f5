// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
internal import Glibc
internal import LinuxIO
internal import NIOHTTP1
internal import Synchronization
internal import WireProtocol

/// The tokens that the server accepts, as digests.
///
/// `authorize` takes the same time for every token, right or wrong. It hashes the token and
/// compares the digest with all known ones, each to its last byte.
final class AccessTable: Sendable {
    private struct Holder: Sendable {
        /// Digest of the token; `nil` if only a certificate or a user is accepted.
        let digest: [UInt8]?
        let user: UInt32?
        let grant: Grant
        /// Seconds since 1970 at which the token expires; `nil` for never.
        let expires: Int?
        /// The addresses that may use the token; `nil` for all.
        let origins: [AddressBlock]?

        func has(_ credential: [UInt8]?) -> Bool {
            guard let digest, let credential else { return false }
            return areEqualInConstantTime(digest, credential)
        }

        func verdict(address: String, now: Int) -> Verdict {
            if let expires, now >= expires { return .expired(grant) }
            guard let origins else { return .granted(grant) }
            return origins.contains { $0.contains(address) } ? .granted(grant) : .misplaced(grant)
        }
    }
    /// `nil` if no token is needed.
    private let holders = Mutex<[Holder]?>(nil)
    private let changes = Atomic(0)

    var generation: Int { changes.load(ordering: .acquiring) }

    enum Verdict: Hashable, Sendable {
        case granted(Grant)
        case missing
        /// An unknown token, or a malformed `Authorization` header.
        case wrong
        /// An expired token, or the line of a certificate or user that has expired.
        case expired(Grant)
        /// A token, certificate or user that may not be used from the client's address.
        case misplaced(Grant)
    }

    /// - Throws: if libcrypto has no SHA-256.
    init(_ tokens: [TokenEntry]?) throws(IOError) { try replace(tokens) }

    /// Replaces the tokens; if libcrypto has no SHA-256, it throws and changes nothing.
    func replace(_ tokens: [TokenEntry]?) throws(IOError) {
        var new: [Holder]?
        if let tokens {
            new = []
            for entry in tokens {
                new?.append(
                    Holder(
                        digest: try entry.tokenDigest(), user: entry.user, grant: Grant(entry),
                        expires: entry.expires, origins: entry.origins))
            }
        }
        holders.withLock { $0 = new }
        changes.wrappingAdd(1, ordering: .releasing)
    }

    /// Authorizes a request by its `Authorization` header (RFC 6750, section 2.1), certificate,
    /// user and address.
    ///
    /// A certificate's name or a user with a line of its own needs no token. `now` is in seconds
    /// since 1970.
    func authorize(
        _ headers: HTTPHeaders, certified: String? = nil, user: UInt32? = nil,
        address: String = "local", now: Int = time(nil)
    ) -> Verdict {
        guard let holders = holders.withLock({ $0 }) else {
            guard let certified else { return .granted(.everything) }
            return .granted(Grant(name: certified, access: .readWrite, selectors: nil))
        }
        if let certified, let holder = holders.first(where: { $0.grant.name == certified }) {
            return holder.verdict(address: address, now: now)
        }
        if let user, let holder = holders.first(where: { $0.user == user }) {
            return holder.verdict(address: address, now: now)
        }
        guard headers.contains(name: "Authorization") else { return .missing }
        guard let digest = Self.digest(ofTokenIn: headers) else { return .wrong }
        var found: Holder?
        for holder in holders {
            guard let known = holder.digest, areEqualInConstantTime(known, digest) else {
                continue
            }
            found = holder
        }
        return found?.verdict(address: address, now: now) ?? .wrong
    }

    /// The SHA-256 of a request's token; `nil` without a well-formed one.
    static func digest(ofTokenIn headers: HTTPHeaders) -> [UInt8]? {
        let values = headers["Authorization"]
        guard let value = values.first else { return nil }
        let words = value.split(separator: " ", omittingEmptySubsequences: true)
        guard values.count == 1, words.count == 2, words[0].lowercased() == "bearer" else {
            return nil
        }
        return try? sha256(of: Array(words[1].utf8))
    }

    /// The present rights of an admitted client; `nil` if its token or certificate is not accepted
    /// any more.
    func grant(of peer: Peer, before: Grant, now: Int) -> Grant? {
        if let end = peer.certificateEnd, now > end { return nil }
        guard let holders = holders.withLock({ $0 }) else { return before }
        guard let holder = holders.first(where: { $0.grant.name == before.name }),
            peer.certified == before.name || holder.has(peer.credential)
                || holder.user != nil && holder.user == peer.user,
            case .granted(let grant) = holder.verdict(address: peer.address, now: now)
        else { return nil }
        return grant
    }

    var isOpen: Bool { holders.withLock { $0 == nil } }

    /// Whether a request may be guessing a token.
    ///
    /// It shows a token, and has neither a certificate nor a user with a line of its own.
    func isGuess(_ headers: HTTPHeaders, certified: String?, user: UInt32? = nil) -> Bool {
        guard headers.contains(name: "Authorization") else { return false }
        return holders.withLock { holders in
            holders.map { holders in
                !holders.contains {
                    certified != nil && $0.grant.name == certified
                        || user != nil && $0.user == user
                }
            } ?? false
        }
    }
}
