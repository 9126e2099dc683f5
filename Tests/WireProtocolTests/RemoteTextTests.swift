// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Testing
import WireProtocol

@Suite struct RemoteTextTests {
    @Test(arguments: ["", "x", String(repeating: "x", count: 1000)])
    func `a text of at most 1000 bytes stays`(text: String) { #expect(text.shortened == text) }

    @Test(arguments: ["x", "é", "€", "😀", "x\u{301}"], [0, 1, 2, 3])
    func `a longer text is cut between two scalars`(character: String, ahead: Int) {
        let text =
            String(repeating: "a", count: ahead) + String(repeating: character, count: 1_000_000)
        let short = text.shortened
        #expect((998...1003).contains(short.utf8.count), "\(short.utf8.count)")
        #expect(short.unicodeScalars.last == "…")
        #expect(text.utf8.starts(with: short.utf8.dropLast("…".utf8.count)))
    }

    @Test func `a list of texts is cut after 100`() {
        #expect([String](repeating: "w", count: 100).shortened.count == 100)
        let texts = [String](repeating: "w", count: 102).shortened
        #expect(texts.count == 101)
        #expect(texts.last == "… and 2 more")
    }
}
