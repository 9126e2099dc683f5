// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Testing
import WireProtocol

/// Locations of servers on a unix socket, and users in token files.
@Suite struct UnixLocationTests {
    private func location(_ text: String) throws -> RemoteLocation? {
        guard case .remote(let location) = try Location(text) else { return nil }
        return location
    }

    @Test(arguments: [
        ("unix:/run/b.sock", "/run/b.sock", nil), ("unix:/run/b.sock:", "/run/b.sock", nil),
        ("unix:/run/b.sock:/", "/run/b.sock", nil), ("unix:b.sock", "b.sock", nil),
        ("unix:/run/b.sock:/dev/loop5", "/run/b.sock", "/dev/loop5"),
        ("unix:/run/b.sock:UUID=1", "/run/b.sock", "UUID=1"),
        ("unix:/run/b.sock:LABEL=a:b", "/run/b.sock", "LABEL=a:b"),
        ("unix:/run/b.sock:NAME=1", "/run/b.sock", "NAME=1"),
        ("unix:/run/b.sock:/srv/a:b%20c d", "/run/b.sock", "/srv/a:b%20c d"),
        ("http+unix://%2Frun%2Fa%3Ab.sock/dev/loop5", "/run/a:b.sock", "/dev/loop5"),
        ("HTTP+UNIX://%2frun%2Fb/LVUUID=x", "/run/b", "LVUUID=x"),
        ("http+unix://%2Frun%2Fb", "/run/b", nil),
    ])
    func `a socket's path ends at the first colon, or is a URL's host`(
        text: String, socket: String, selector: String?
    ) throws {
        let found = try #require(try location(text))
        #expect(found.scheme == .unix && found.socket == socket && found.selector == selector)
        #expect(found.text == text && found.port == nil)
        let server = try #require(try location(found.server))
        #expect(server.socket == socket && server.selector == nil && server.server == found.server)
        #expect(found.server.hasPrefix(socket.contains(":") ? "http+unix://%2F" : "unix:"))
    }

    @Test(arguments: [
        "unix:", "unix::/dev/loop5", "unix:/run/b.sock:dev/loop5", "unix:///run/b.sock",
        "http+unix:///dev/loop5", "http+unix://%ZZ/dev/loop5", "http+unix://%2Frun%00/dev/loop5",
        "unix:/" + String(repeating: "a", count: 107), "https+unix://%2Frun/dev/x",
        "unix:/run/b.sock:/dev/a\u{0}b",
    ])
    func `a unix location without a socket or a device is refused`(text: String) {
        #expect(throws: WireError.self) { try Location(text) }
    }

    @Test func `a user's line has a name or a number, once, and no addresses`() throws {
        let users = { (name: String) in name == "root" ? UInt32(0) : nil }
        let entries = try tokens(
            inFile: "a user:root ro\nb user:1000 append-only /srv/\n", named: "t", users: users)
        #expect(entries.map(\.user) == [0, 1000] && entries.allSatisfy { $0.token == nil })
        #expect(entries[0].access == .readOnly && entries[1].isAppendOnly)
        for text in [
            "a user:nobody", "a user:", "a user:-1", "a user:4294967296",
            "a user:0 from=127.0.0.1", "a user:root\nb user:0",
        ] {
            #expect(throws: WireError.self, "\(text)") {
                try tokens(inFile: text, named: "t", users: users)
            }
        }
    }
}
