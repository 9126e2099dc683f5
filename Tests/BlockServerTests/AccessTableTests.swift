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

    private func judge(_ lines: [String], _ table: AccessTable) -> AccessTable.Verdict {
        table.judge(HTTPHeaders(lines.map { ("Authorization", $0) }))
    }

    @Test func `whoever shows a token gets what it is for`() throws {
        let table = try AccessTable([
            TokenEntry(name: "a", token: Self.token, access: .readOnly),
            TokenEntry(name: "b", token: Self.other),
        ])
        let first = Grant(name: "a", access: .readOnly, selectors: nil)
        for line in ["Bearer \(Self.token)", "bearer \(Self.token)", "BEARER   \(Self.token)"] {
            #expect(judge([line], table) == .granted(first))
        }
        #expect(
            judge(["Bearer \(Self.other)"], table)
                == .granted(Grant(name: "b", access: .readWrite, selectors: nil)))
        #expect(judge([], table) == .missing)
        for line in [
            "Bearer \(Self.token)x", "Bearer \(Self.token.dropLast())", "Bearer", "", "Bearer ",
            "Basic \(Self.token)", Self.token, "Bearer \(Self.token) \(Self.other)",
        ] {
            #expect(judge([line], table) == .wrong, "\(line)")
        }
        #expect(judge(["Bearer \(Self.token)", "Bearer \(Self.token)"], table) == .wrong)
    }

    @Test func `without tokens everybody may do everything, and tokens can be changed`() throws {
        let table = try AccessTable(nil)
        #expect(judge([], table) == .granted(.everything))
        #expect(judge(["Bearer nonsense"], table) == .granted(.everything))
        try table.replace([TokenEntry(name: "a", token: Self.token)])
        #expect(judge([], table) == .missing)
        try table.replace([TokenEntry(name: "b", token: Self.other)])
        #expect(judge(["Bearer \(Self.token)"], table) == .wrong)
        try table.replace([])
        #expect(judge(["Bearer \(Self.other)"], table) == .wrong)
    }

    @Test func `each wrong token costs twice as much, up to a limit, and is forgotten`() {
        let penalties = Penalties()
        let start = ContinuousClock.Instant.now
        let waits = (0..<20).map { penalties.wait(of: "192.0.2.1", now: start + .seconds($0)) }
        #expect(waits.prefix(4) == [.milliseconds(500), .seconds(1), .seconds(2), .seconds(4)])
        #expect(waits.dropFirst(6).allSatisfy { $0 == .seconds(30) })
        #expect(penalties.wait(of: "192.0.2.2", now: start) == .milliseconds(500))
        #expect(penalties.wait(of: "192.0.2.1", now: start + .seconds(700)) == .milliseconds(500))
    }

    @Test func `an asker's addresses of one network count as one`() {
        let penalties = Penalties()
        #expect(penalties.wait(of: "2001:db8::1") == .milliseconds(500))
        #expect(penalties.wait(of: "2001:db8::ffff:2") == .seconds(1))
        #expect(penalties.wait(of: "2001:db8:0:1::1") == .milliseconds(500))
        #expect(penalties.wait(of: "::ffff:192.0.2.1") == .milliseconds(500))
        #expect(penalties.wait(of: "::ffff:192.0.2.2") == .milliseconds(500))
    }

    @Test func `any number of addresses is no burden`() {
        let penalties = Penalties()
        let start = ContinuousClock.Instant.now
        for index in 0..<10_000 {
            _ = penalties.wait(of: "10.0.\(index / 250).\(index % 250)", now: start + .seconds(1))
        }
        #expect(penalties.count <= 4096)
    }
}
