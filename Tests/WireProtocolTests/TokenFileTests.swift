// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Testing
import WireProtocol

/// The files in which servers and clients keep tokens.
@Suite struct TokenFileTests {
    private static let good = "abcdefghijklmnopqrstuvwxyz0123456789-_=~"

    private func entries(_ text: String) throws -> [TokenEntry] {
        try tokens(inFile: text, named: "t")
    }

    @Test func `a line is a name, a token, what it may do and where`() throws {
        let other = String(Self.good.reversed())
        let text = """
            # everything
            backup \(Self.good)
              laptop.home@x-1\t\(other)  ro  UUID=ab /srv/images/ /dev/vg0/root # comment

            """
        let found = try entries(text)
        #expect(found.count == 2)
        #expect(found[0] == TokenEntry(name: "backup", token: Self.good))
        #expect(found[1].name == "laptop.home@x-1" && found[1].token == other)
        #expect(found[1].access == .readOnly)
        #expect(found[1].selectors?.map(\.text) == ["UUID=ab", "/srv/images/", "/dev/vg0/root"])
    }

    @Test func `reading and writing is a word as well, and the default`() throws {
        let found = try entries("a \(Self.good) rw /dev/sda")
        #expect(found[0].access == .readWrite && found[0].selectors?.count == 1)
    }

    @Test(arguments: [
        ("", "t: there is no token in it"), ("# nothing", "t: there is no token in it"),
        ("alone", "t:1: a line has a name and a token"),
        (
            "\na short",
            "t:2: the token has 5 characters, not 20 to 512; "
                + "blkferry token makes a good one"
        ),
        (
            "a b$cdefghijklmnopqrstuvwxyz",
            "t:1: the token has characters besides letters, digits and -._~+/="
        ),
        ("na/me \(good)", "t:1: the name is not of 1 to 64 letters, digits and ._@-"),
        ("a \(good)\nb \(good)", "t:2: b has the same token as a"),
        ("a \(good)\na \(good)x", "t:2: a has a line already"),
        (
            "a \(good) not/absolute/x",
            "t:1: not/absolute/x: not an absolute path, nor UUID= or another tag, nor a volume group"
                + " or volume"
        ),
        ("a \(good) /dev/sda:rw", "t:1: /dev/sda:rw: a selector is without :ro and :rw here"),
    ])
    func `what is wrong is told with file and line, and never with the token`(
        text: String, reason: String
    ) {
        let error = #expect(throws: WireError.self) { try entries(text) }
        #expect(error?.reason == reason)
        #expect(error?.reason.contains(Self.good) == false)
    }

    @Test func `a client's file holds one token`() throws {
        #expect(try token(inFile: "# mine\n\(Self.good)\n", named: "c") == Self.good)
        for text in ["", "# nothing", "\(Self.good)\n\(Self.good)", "short", "a \(Self.good)"] {
            let error = #expect(throws: WireError.self) { try token(inFile: text, named: "c") }
            #expect(error?.reason.contains(Self.good) == false, "\(text)")
        }
    }
}
