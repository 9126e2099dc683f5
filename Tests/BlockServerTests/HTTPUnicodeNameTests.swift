// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Glibc
import TestSupport
import Testing
import WireProtocol

/// Names that Swift's strings compare as equal, while the kernel has a file for each.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPUnicodeNameTests {
    private static let composed = "caf\u{e9}"
    private static let decomposed = "cafe\u{301}"
    private static let size = 8192
    private let scratch: ScratchDirectory

    private struct Image {
        let path: String
        let bytes: [UInt8]

        init(_ scratch: ScratchDirectory, _ name: String, seed: UInt64) throws {
            path = scratch.file(name)
            var random = SeededGenerator(seed: seed)
            bytes = random.bytes(HTTPUnicodeNameTests.size)
            try makeImage(path, bytes)
        }
    }

    /// The images of both names, with different content.
    private let images: [Image]

    init() throws {
        let scratch = try ScratchDirectory()
        self.scratch = scratch
        images = try [Self.composed, Self.decomposed].enumerated().map { index, name in
            try Image(scratch, name, seed: UInt64(index) + 1)
        }
    }

    private func content(_ image: Image) throws -> [UInt8] {
        try [UInt8](contentsOf: image.path)
    }

    /// In both orders, since the first export that matches could hide the other.
    @Test(arguments: [0, 1])
    func `a read-only export is not writable through an export of the other name`(
        readOnly: Int
    ) throws {
        let (kept, written) = (images[readOnly], images[1 - readOnly])
        for exports in [
            [kept.path + ":ro", written.path + ":rw"], [written.path + ":rw", kept.path + ":ro"],
        ] {
            let server = try TestServer(exports[0], exports[1])
            let refused = try server.open(kept.path, .write, size: Self.size)
            #expect(refused.status == 403 && refused.problem == .access, "\(refused.text)")
            for image in images { #expect(try content(image) == image.bytes) }
            let session = try server.session(written.path, .write, size: Self.size).session
            let data = [UInt8](repeating: 9, count: 4096)
            #expect(try server.write(session, data, at: 0).status == 204)
            #expect(try server.commit(session).status == 204)
            #expect(try content(written) == data + written.bytes[4096...])
            #expect(try content(kept) == kept.bytes)
            try makeImage(written.path, written.bytes)
        }
    }

    @Test(arguments: [false, true])
    func `downloads one after the other get their own bytes and tags`(ofDirectory: Bool) throws {
        let server =
            try ofDirectory
            ? TestServer(scratch.path + "/") : TestServer(images[0].path, images[1].path)
        var tags: [String?] = []
        // Each again, when both are remembered.
        for image in images + images {
            let answer = try server.ask("GET", Route.content(image.path).path)
            #expect(answer.status == 200 && answer.body == image.bytes)
            tags.append(answer.headers["etag"])
        }
        #expect(tags[0] != nil && tags[0] != tags[1])
        #expect(tags[2] == tags[0] && tags[3] == tags[1])
    }

    @Test func `a dry run for a new image does not lock the new image of the other name`() throws {
        let server = try TestServer(scratch.path + "/:rw")
        let dry = try server.open(scratch.file("n\u{e9}w"), .dryRun, size: Self.size)
        #expect(dry.status == 201, "\(dry.text)")
        let other = try server.open(scratch.file("ne\u{301}w"), .write, size: Self.size)
        #expect(other.status == 201, "\(other.text)")
    }

    @Test func `both devices can be written at once, also new ones`() throws {
        let server = try TestServer(scratch.path + "/:rw")
        let new = ["n\u{e9}w", "ne\u{301}w"].map { scratch.file($0) }
        for paths in [images.map(\.path), new] {
            var sessions: [String] = []
            for path in paths {
                let answer = try server.open(path, .write, size: Self.size)
                #expect(answer.status == 201, "\(answer.text)")
                sessions.append(try answer.decoded(as: SessionRecord.self).session)
            }
            for (index, session) in sessions.enumerated() {
                let data = [UInt8](repeating: UInt8(index) + 1, count: Self.size)
                #expect(try server.write(session, data, at: 0).status == 204)
                #expect(try server.commit(session).status == 204)
            }
            for (index, path) in paths.enumerated() {
                let written = try [UInt8](contentsOf: path)
                #expect(written == [UInt8](repeating: UInt8(index) + 1, count: Self.size))
            }
        }
    }

    @Test func `an exported directory grants nothing in the directory of the other name`() throws {
        try must("mkdir", scratch.file("d\u{e9}"), scratch.file("de\u{301}"))
        let own = try Image(scratch, "d\u{e9}/a.img", seed: 3)
        let other = try Image(scratch, "de\u{301}/a.img", seed: 4)
        let server = try TestServer(scratch.file("d\u{e9}/:rw"))
        #expect(try server.ask("GET", Route.content(own.path).path).body == own.bytes)
        #expect(try server.ask("GET", Route.content(other.path).path).status == 404)
        #expect(try server.open(other.path, .write, size: Self.size).status == 404)
        // The directory's name in the other form must not lead to the exported directory either.
        let missing = scratch.file("de\u{301}/new.img")
        #expect(try server.open(missing, .write, size: Self.size).status == 404)
        #expect(access(scratch.file("d\u{e9}/new.img"), F_OK) != 0)
        #expect(try content(other) == other.bytes)
    }

    @Test func `an image whose name starts with a combining mark is found`() throws {
        let image = try Image(scratch, "\u{301}a.img", seed: 5)
        for export in [scratch.path + "/", image.path] {
            let server = try TestServer(export)
            let answer = try server.ask("GET", Route.content(image.path).path)
            #expect(answer.status == 200 && answer.body == image.bytes)
        }
    }

    @Test func `a token for one name does not see the other one`() throws {
        let token = TokenEntry(
            name: "one", token: "token-of-enough-characters",
            selectors: [try ExportSelector(images[0].path)])
        let server = try TestServer(scratch.path + "/") { $0.tokens = [token] }
        let header = ["Authorization: Bearer token-of-enough-characters"]
        let statuses = try images.map {
            try server.ask("GET", Route.content($0.path).path, header).status
        }
        #expect(statuses == [200, 404])
    }
}
