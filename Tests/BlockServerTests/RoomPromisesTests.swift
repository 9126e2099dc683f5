// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Glibc
import TestSupport
import Testing
import WireProtocol

@testable import BlockServer

/// What counts for `max-size=` while images are being created and resized: here 4 MiB.
@Suite(.blocking, .timeLimit(.minutes(60))) struct RoomPromisesTests {
    private static let unit = 1 << 20

    private let scratch: ScratchDirectory
    private let exports: ExportTable
    private let grant: Grant
    private let promises = RoomPromises()

    init() throws {
        scratch = try ScratchDirectory()
        exports = ExportTable(exports: [try ExportSelector(scratch.path + "/:rw")])
        var grant = Grant(name: "a", access: .readWrite, selectors: nil)
        grant.maximumSize = 4 * Self.unit
        self.grant = grant
    }

    private func find(_ name: String) throws -> ExportTable.Found {
        try exports.find(scratch.file(name), canCreate: true, for: grant)
    }

    /// Whether there is room for an image of some MiB; if so, calls `body` while it is promised.
    private func hasRoom(
        _ size: Int, for found: ExportTable.Found, isCounted: Bool = true,
        _ body: () -> Void = {}
    ) -> Bool {
        do throws(Problem) {
            try promises.promising(
                size * Self.unit, to: found, grant, in: exports, isCounted: isCounted
            ) { () throws(Problem) in body() }
            return true
        } catch {
            #expect(error.status == 409 && error.kind == .refused)
            return false
        }
    }

    private func cut(_ name: String, to size: Int) {
        #expect(truncate(scratch.file(name), off_t(size * Self.unit)) == 0)
    }

    // Names that are equal as text are two files if their bytes differ.
    @Test(arguments: [("first", "second"), ("\u{e9}", "e\u{301}")])
    func `two requests cannot have the same room`(name: String, other: String) throws {
        let (first, second) = (try find(name), try find(other))
        var answers: [Bool] = []
        let isFirst = hasRoom(3, for: first) {
            answers = [hasRoom(2, for: second), hasRoom(1, for: second)]
        }
        #expect(isFirst && answers == [false, true])
        // The first request has failed.
        #expect(hasRoom(4, for: second))
    }

    @Test func `an image that gets its size while it is promised counts once`() throws {
        let (first, second) = (try find("first"), try find("second"))
        var answers: [Bool] = []
        let isFirst = hasRoom(3, for: first) {
            answers = [(try? scratch.sparseFile("first", size: 3 * Self.unit)) != nil]
            answers += [hasRoom(2, for: second), hasRoom(1, for: second)]
        }
        #expect(isFirst && answers == [true, false, true])
        #expect(!hasRoom(2, for: second) && hasRoom(1, for: second))
    }

    @Test func `the size of an image that was cut since it was found does not count`() throws {
        _ = try scratch.sparseFile("a", size: 3 * Self.unit)
        let found = try find("a")
        cut("a", to: 1)
        _ = try scratch.sparseFile("b", size: 3 * Self.unit)
        #expect(!hasRoom(4, for: found))
        #expect(!hasRoom(3, for: found))
        #expect(hasRoom(1, for: found))
    }

    @Test func `an image that a request leaves at its size keeps the room when another cuts it`()
        throws
    {
        _ = try scratch.sparseFile("a", size: 3 * Self.unit)
        let (found, other) = (try find("a"), try find("b"))
        var answers: [Bool] = []
        let isFirst = hasRoom(3, for: found) {
            let isSecond = hasRoom(1, for: found) { cut("a", to: 1) }
            answers = [isSecond, hasRoom(2, for: other), hasRoom(1, for: other)]
        }
        #expect(isFirst && answers == [true, false, true])
        #expect(hasRoom(3, for: other))
    }

    @Test func `a dry run gets the same answer and takes no room`() throws {
        let (first, second) = (try find("first"), try find("second"))
        var isOther = false
        #expect(!hasRoom(5, for: first, isCounted: false))
        let isDryRun = hasRoom(4, for: first, isCounted: false) {
            isOther = hasRoom(4, for: second)
        }
        #expect(isDryRun && isOther)
    }

    @Test func `an image that exists already beyond the limit may stay or become smaller`() throws {
        _ = try scratch.sparseFile("a", size: 6 * Self.unit)
        let found = try find("a")
        #expect(hasRoom(6, for: found) && hasRoom(5, for: found))
        #expect(!hasRoom(7, for: found))
    }

    // The shell's printf makes the bytes, which no String has.
    @Test(arguments: [".", "$(printf '\\351')", "sub/$(printf '\\351')"])
    func `a file counts also if its path is not UTF-8`(directory: String) throws {
        let found = try find("new")
        try must(
            "sh", "-c",
            "cd \(scratch.path) && mkdir -p \"\(directory)\" && cd \"\(directory)\" "
                + "&& truncate -s 3M \"caf$(printf '\\351')\"")
        #expect(!hasRoom(2, for: found) && hasRoom(1, for: found))
        try must("sh", "-c", "rm -r \(scratch.path)/*")
        #expect(hasRoom(4, for: found))
    }
}
