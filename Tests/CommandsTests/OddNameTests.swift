// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Images with names that shells, URLs and terminals take for something else.
@Suite(.blocking, .timeLimit(.minutes(60))) struct OddNameTests {
    private let scratch: ScratchDirectory
    private let source: String

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.filledFile("source", size: 64 << 10, seed: 6)
    }

    static let names = [
        "a b", " ", "a\nb", "a\tb", "\u{1B}[2J", "a'b\"c`d", "$HOME", "*", "?x=1", "#a", "%", "%2F",
        "%00", "a&b;c|d", "a\\b", "~", "!", "-h", "--help", "-", "a:b", "host:x", "UUID=x", "a=b",
        "http:", "é", "e\u{301}", "\u{202E}x", "\u{1F4BE}", "..a", "...", "a.", "[::1]", "{x}",
        String(repeating: "n", count: 255), String(repeating: "\u{e9}", count: 127),
    ]

    /// Names that a server gives to no new image.
    private static let controls: Set = ["a\nb", "a\tb", "\u{1B}[2J", "\u{202E}x"]

    @Test(arguments: names) func `an image of any name is a target and a source`(name: String)
        throws
    {
        let path = scratch.file(name)
        let push = try blkferry("--verify", source, path)
        #expect(push.status == 0 && push.errors.isEmpty, "\(push)")
        #expect(try areEqual(source, path))
        // The name does not break its line.
        let line = try #require(push.output.split(separator: "\n").first)
        #expect(line.hasSuffix(": synced, flushed, verified"), "\(push)")
        #expect(!push.output.contains("\u{1B}"))
        let (result, json) = try blkferryJSON("verify", path, source)
        #expect(result.status == 0 && json.string("source") == path, "\(result)")
    }

    @Test(arguments: names) func `a server's image of any name is a target and a source`(
        name: String
    ) throws {
        let directory = scratch.file("d")
        try must("mkdir", directory)
        let server = try ServeProcess("\(directory)/:rw")
        let path = "\(directory)/\(name)"
        let letters = CharacterSet(charactersIn: "/").union(.alphanumerics)
        let encoded = try #require(
            path.addingPercentEncoding(
                withAllowedCharacters: letters.intersection(CharacterSet(charactersIn: "\0"..."~")))
        )
        let push = try blkferry("-q", source, server.url(encoded))
        guard !Self.controls.contains(name) else {
            #expect(push.status == 2 && push.errors.contains("control characters"), "\(push)")
            #expect(!FileManager.default.fileExists(atPath: path))
            return
        }
        #expect(push.status == 0 && push.errors.isEmpty, "\(push)")
        #expect(try areEqual(source, path))
        let pull = try blkferry("-q", server.url(encoded), scratch.file("back"))
        #expect(pull.status == 0 && pull.errors.isEmpty, "\(pull)")
        #expect(try areEqual(source, scratch.file("back")))
        let list = try blkferry("list", server.url(""))
        #expect(list.status == 0 && !list.output.contains("\u{1B}"))
        // The heading, the directory, and the image where its name does not begin with a dot.
        let count = name.hasPrefix(".") ? 2 : 3
        #expect(list.output.split(separator: "\n").count == count, "\(list)")
    }
}
