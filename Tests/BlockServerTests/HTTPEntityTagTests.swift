// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import TestSupport
import Testing
import WireProtocol

/// The entity tag of a device's content: RFC 9110, sections 8.8.3 and 13.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPEntityTagTests {
    private static let size = 64 << 10
    private let served: ServedImage

    init() throws { served = try ServedImage(size: Self.size) }

    private func tag(_ method: String = "HEAD") throws -> String {
        let tag = try served.ask(method).headers["etag"]
        return try #require(tag)
    }

    private func change() throws {
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: served.image.path))
        try file.seek(toOffset: 40_000)
        try file.write(contentsOf: Data([1, 2, 3]))
        try file.close()
    }

    @Test func `an entity tag is strong, the same for each request, and changes with a write`()
        throws
    {
        let first = try tag()
        #expect(first.hasPrefix("\"") && first.hasSuffix("\"") && first.utf8.count > 20)
        let part = try served.ask("GET", ["Range: bytes=0-9"])
        #expect(try tag("GET") == first && part.headers["etag"] == first)
        let other = try TestServer(served.image.path)
        #expect(try other.ask("HEAD", served.path).headers["etag"] == first)
        try change()
        #expect(try tag() != first)
    }

    @Test func `a write whose time is set back changes the entity tag`() throws {
        let (first, status) = (try tag(), try must("stat", "-c", "%y", served.image.path))
        try change()
        try must("touch", "-m", "-d", status.trimmingCharacters(in: .newlines), served.image.path)
        #expect(try tag() != first)
    }

    @Test func `a range is sent while the entity tag matches, and the whole content afterwards`()
        throws
    {
        let tag = try self.tag()
        func ask(_ field: String) throws -> HTTPAnswer {
            try served.ask("GET", ["Range: bytes=5-9", field])
        }
        for field in [
            "If-Range: \(tag)", "If-Match: \(tag)", "If-Match: *", "If-Match: \"x\", \(tag)",
        ] {
            let answer = try ask(field)
            #expect(
                answer.status == 206 && answer.body == Array(served.image.bytes[5..<10]), "\(field)"
            )
        }
        #expect(try ask("If-Range: W/\(tag)").status == 200)
        #expect(try ask("If-None-Match: \"x\"").status == 206)
        let same = try ask("If-None-Match: W/\(tag)")
        #expect(same.status == 304 && same.body.isEmpty && same.headers["etag"] == tag)
        try change()
        let whole = try ask("If-Range: \(tag)")
        #expect(whole.status == 200 && whole.body.count == Self.size)
        #expect(whole.headers["content-range"] == nil)
        let failed = try ask("If-Match: \(tag)")
        #expect(failed.status == 412 && failed.problem == .malformed)
        #expect(try served.ask("HEAD", ["If-Match: \(tag)"]).status == 412)
        #expect(try ask("If-None-Match: \(tag)").status == 206)
    }

    @Test func `a connection goes on after 304 and 412`() throws {
        let tag = try self.tag()
        let connection = try HTTPConnection(port: served.server.port)
        for (field, status) in [("If-None-Match: \(tag)", 304), ("If-Match: \"x\"", 412)] {
            #expect(try connection.ask("GET", served.path, [field]).status == status)
            let next = try connection.ask("GET", served.path, ["Range: bytes=0-2"])
            #expect(next.status == 206 && next.body == Array(served.image.bytes[..<3]))
        }
    }

    @Test func `curl continues with an unchanged device, and not with a changed one`() throws {
        let url = "http://127.0.0.1:\(served.server.port)\(served.path)"
        let copy = served.scratch.file("copy")
        let tag = try self.tag()
        func resume(_ field: String) throws -> ProgramResult {
            try must(
                "dd", "if=\(served.image.path)", "of=\(copy)", "bs=1000", "count=20", "status=none")
            try must("truncate", "-s", "20000", copy)
            return try run("curl", "-sS", "-f", "-o", copy, "-C", "-", "-H", field, url)
        }
        for field in ["If-Match: \(tag)", "If-Range: \(tag)"] {
            #expect(try resume(field).status == 0)
            #expect(try Data(contentsOf: URL(fileURLWithPath: copy)) == Data(served.image.bytes))
        }
        try change()
        // CURLE_HTTP_RETURNED_ERROR, CURLE_RANGE_ERROR
        #expect(try resume("If-Match: \(tag)").status == 22)
        #expect(try resume("If-Range: \(tag)").status == 33)
        #expect(try Data(contentsOf: URL(fileURLWithPath: copy)).count == 20_000)
    }

    @Test(.enabled(if: isRoot)) func `the entity tag of a device changes with a write to it`()
        throws
    {
        let loop = try LoopDevice(size: 1 << 20)
        let server = try TestServer(loop.path)
        let path = Route.content(loop.path).path
        let first = try #require(try server.ask("HEAD", path).headers["etag"])
        #expect(try server.ask("GET", path, ["If-Match: \(first)"]).status == 200)
        try must("dd", "if=/dev/urandom", "of=\(loop.path)", "bs=512", "count=1", "conv=fsync")
        #expect(try server.ask("GET", path, ["If-Match: \(first)"]).status == 412)
        #expect(try server.ask("HEAD", path).headers["etag"] != first)
    }
}
