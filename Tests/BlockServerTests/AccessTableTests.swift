// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import NIOHTTP1
import Testing
import WireProtocol

@testable import BlockServer

/// Who is let in, and how long the others wait.
@Suite struct AccessTableTests {
    private static let token = "one-token-of-enough-characters"
    private static let other = "two-token-of-enough-characters"

    private func authorize(_ lines: [String], _ table: AccessTable) -> AccessTable.Verdict {
        table.authorize(HTTPHeaders(lines.map { ("Authorization", $0) }))
    }

    @Test func `a request with a token gets the rights of that token`() throws {
        let table = try AccessTable([
            TokenEntry(name: "a", token: Self.token, access: .readOnly),
            TokenEntry(name: "b", token: Self.other),
        ])
        let first = Grant(name: "a", access: .readOnly, selectors: nil)
        for line in ["Bearer \(Self.token)", "bearer \(Self.token)", "BEARER   \(Self.token)"] {
            #expect(authorize([line], table) == .granted(first))
        }
        #expect(
            authorize(["Bearer \(Self.other)"], table)
                == .granted(Grant(name: "b", access: .readWrite, selectors: nil)))
        #expect(authorize([], table) == .missing)
        for line in [
            "Bearer \(Self.token)x", "Bearer \(Self.token.dropLast())", "Bearer", "", "Bearer ",
            "Basic \(Self.token)", Self.token, "Bearer \(Self.token) \(Self.other)",
        ] {
            #expect(authorize([line], table) == .wrong, "\(line)")
        }
        #expect(authorize(["Bearer \(Self.token)", "Bearer \(Self.token)"], table) == .wrong)
    }

    @Test func `without tokens every request may do everything, and tokens can be replaced`() throws
    {
        let table = try AccessTable(nil)
        #expect(authorize([], table) == .granted(.everything))
        #expect(authorize(["Bearer nonsense"], table) == .granted(.everything))
        try table.replace([TokenEntry(name: "a", token: Self.token)])
        #expect(authorize([], table) == .missing)
        try table.replace([TokenEntry(name: "b", token: Self.other)])
        #expect(authorize(["Bearer \(Self.token)"], table) == .wrong)
        try table.replace([])
        #expect(authorize(["Bearer \(Self.other)"], table) == .wrong)
    }

    @Test func `each wrong token costs twice as much, up to a limit, and is forgotten`() {
        let throttle = AuthThrottle()
        let start = ContinuousClock.Instant.now
        let waits = (0..<20).map { throttle.wait(of: "192.0.2.1", now: start + .seconds($0)) }
        #expect(waits.prefix(4) == [.milliseconds(500), .seconds(1), .seconds(2), .seconds(4)])
        #expect(waits.dropFirst(6).allSatisfy { $0 == .seconds(30) })
        #expect(throttle.wait(of: "192.0.2.2", now: start) == .milliseconds(500))
        #expect(throttle.wait(of: "192.0.2.1", now: start + .seconds(700)) == .milliseconds(500))
    }

    @Test func `addresses of one network count as one`() {
        let throttle = AuthThrottle()
        #expect(throttle.wait(of: "2001:db8::1") == .milliseconds(500))
        #expect(throttle.wait(of: "2001:db8::ffff:2") == .seconds(1))
        #expect(throttle.wait(of: "2001:db8:0:1::1") == .milliseconds(500))
        #expect(throttle.wait(of: "::ffff:192.0.2.1") == .milliseconds(500))
        #expect(throttle.wait(of: "::ffff:192.0.2.2") == .milliseconds(500))
    }

    @Test func `the throttle remembers at most 4096 addresses`() {
        let throttle = AuthThrottle()
        let start = ContinuousClock.Instant.now
        for index in 0..<10_000 {
            _ = throttle.wait(of: "10.0.\(index / 250).\(index % 250)", now: start + .seconds(1))
        }
        #expect(throttle.count <= 4096)
    }

    @Test func `while one network waits, addresses of other networks do not`() {
        let throttle = AuthThrottle()
        let start = ContinuousClock.Instant.now
        #expect(throttle.remaining(of: "2001:db8::1", now: start) == nil)
        _ = throttle.wait(of: "2001:db8::1", now: start)
        #expect(
            throttle.remaining(of: "2001:db8::2", now: start + .milliseconds(200))
                == .milliseconds(300))
        #expect(throttle.remaining(of: "192.0.2.1", now: start) == nil)
        #expect(throttle.remaining(of: "2001:db8::1", now: start + .milliseconds(500)) == nil)
    }

    @Test func `a token is valid until it expires, and from its addresses only`() throws {
        var entry = TokenEntry(name: "a", token: Self.token)
        entry.expires = 1000
        entry.origins = [try AddressBlock("192.0.2.0/24"), try AddressBlock("2001:db8::/32")]
        let table = try AccessTable([entry])
        let headers = HTTPHeaders([("Authorization", "Bearer \(Self.token)")])
        let grant = Grant(entry)
        func authorize(_ address: String, _ now: Int) -> AccessTable.Verdict {
            table.authorize(headers, address: address, now: now)
        }
        #expect(authorize("192.0.2.9", 999) == .granted(grant))
        #expect(authorize("::ffff:192.0.2.9", 999) == .granted(grant))
        #expect(authorize("2001:db8:1::1", 999) == .granted(grant))
        #expect(authorize("192.0.2.9", 1000) == .expired(grant))
        for address in ["192.0.3.1", "local", "2001:db9::1", "::ffff:192.0.3.1", ""] {
            #expect(authorize(address, 999) == .misplaced(grant), "\(address)")
        }
        entry.token = nil
        let certificates = try AccessTable([entry])
        #expect(
            certificates.authorize([:], certified: "a", address: "192.0.2.1", now: 1001)
                == .expired(grant))
        #expect(
            certificates.authorize([:], certified: "a", address: "192.0.9.1", now: 1)
                == .misplaced(grant))
    }

    @Test func `a hashed token admits the token itself, and not its hash`() throws {
        let atRest = try TokenEntry.atRest(Self.token)
        let table = try AccessTable([try TokenEntry(line: "a \(atRest) ro")])
        #expect(
            authorize(["Bearer \(Self.token)"], table)
                == .granted(Grant(name: "a", access: .readOnly, selectors: nil)))
        #expect(authorize(["Bearer \(atRest)"], table) == .wrong)
        #expect(authorize(["Bearer \(atRest.dropFirst(7))"], table) == .wrong)
    }
}
