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

    @Test func `a line is a name, a token, its access and its selectors`() throws {
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

    @Test func `the word rw is allowed, and the default`() throws {
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
        (
            "a \(good) expires=soon",
            "t:1: soon: not a date such as 2027-01-31 or 2027-01-31T18:30:00Z"
        ),
        (
            "a \(good) expires=2027-02-29",
            "t:1: 2027-02-29: not a date such as 2027-01-31 or 2027-01-31T18:30:00Z"
        ),
        (
            "a \(good) from=",
            "t:1: : not an address, nor a block such as 192.0.2.0/24"
        ),
        (
            "a \(good) from=192.0.2.1,host",
            "t:1: host: not an address, nor a block such as 192.0.2.0/24"
        ),
        (
            "a \(good) from=192.0.2.0/33",
            "t:1: 192.0.2.0/33: the length of the block is not 0 to 32"
        ),
        (
            "a \(good) from=192.0.2.7/24",
            "t:1: 192.0.2.7/24: the address has bits behind the first 24"
        ),
        ("a \(good) max-size=much", "t:1: max-size=much: not a size such as 500G"),
        ("a \(good) max-size=1G max-size=1G", "t:1: max-size=1G: it occurs twice"),
        ("a \(good) ro append-only", "t:1: append-only needs write access, and the line has ro"),
        ("a \(good) ro ro", "t:1: ro or rw occurs more than once"),
        ("a \(good) rw /srv/a/ ro", "t:1: ro or rw occurs more than once"),
        (
            "a \(good) /srv/a/ readonly",
            "t:1: readonly: not a word of a token line; a volume group is readonly/*"
        ),
        (
            "a \(good) Append_Only /srv/a/",
            "t:1: Append_Only: not a word of a token line; a volume group is Append_Only/*"
        ),
        ("a sha256:abc", "t:1: sha256: is followed by 64 hexadecimal digits"),
    ])
    func `the error of a wrong line has file and line, and never the token`(
        text: String, reason: String
    ) {
        let error = #expect(throws: WireError.self) { try entries(text) }
        #expect(error?.reason == reason)
        #expect(error?.reason.contains(Self.good) == false)
    }

    @Test func `restrictions of a line come in any order, between other words`() throws {
        let found = try entries(
            "a \(Self.good) from=192.0.2.0/24,::1 rw expires=2027-01-31 /srv/a/ append-only max-size=1.5G\n"
                + "b \(Self.good)2 expires=2000-02-29T23:59:59Z UUID=ab\n")
        #expect(found[0].expires == 1_801_353_600)
        #expect(
            found[0].origins == [try AddressBlock("192.0.2.0/24"), try AddressBlock("::1/128")])
        #expect(found[0].maximumSize == 3 << 29 && found[0].isAppendOnly)
        #expect(found[0].access == .readWrite && found[0].selectors?.map(\.text) == ["/srv/a/"])
        #expect(found[1].expires == 951_868_799 && !found[1].isAppendOnly)
        #expect(found[1].origins == nil && found[1].maximumSize == nil)
    }

    @Test func `ro behind the selectors restricts the line as well`() throws {
        let found = try entries("a \(Self.good) /srv/a/ ro\nb \(Self.good)2 vg0 ro/* rw")
        #expect(found[0].access == .readOnly && found[0].selectors?.map(\.text) == ["/srv/a/"])
        #expect(found[1].access == .readWrite && found[1].selectors?.count == 2)
    }

    @Test(arguments: ["expire=2027-01-31", "max_size=5G", "From=192.0.2.1", "appendonly=1"])
    func `a restriction with a misspelled name is refused`(word: String) {
        #expect(throws: WireError.self) { try entries("a \(Self.good) \(word)") }
    }

    @Test func `a token and its hash are the same token`() throws {
        let atRest = try TokenEntry.atRest(Self.good)
        let found = try entries("a \(atRest)")
        #expect(found[0].token == nil && found[0].digest?.count == 32)
        let error = #expect(throws: WireError.self) {
            try entries("a \(Self.good)\nb \(atRest)")
        }
        #expect(error?.reason == "t:2: b has the same token as a")
    }

    @Test func `a client's file holds one token`() throws {
        #expect(try token(inFile: "# mine\n\(Self.good)\n", named: "c") == Self.good)
        for text in ["", "# nothing", "\(Self.good)\n\(Self.good)", "short", "a \(Self.good)"] {
            let error = #expect(throws: WireError.self) { try token(inFile: text, named: "c") }
            #expect(error?.reason.contains(Self.good) == false, "\(text)")
        }
    }
}
