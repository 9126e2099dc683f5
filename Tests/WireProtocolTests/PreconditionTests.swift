// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Testing
import WireProtocol

/// RFC 9110, section 13.
@Suite struct PreconditionTests {
    private let tag = "\"a\""

    private func verdict(
        match: String? = nil, noneMatch: String? = nil, _ tag: String?
    ) -> Preconditions.Verdict {
        Preconditions(ifMatch: match, ifNoneMatch: noneMatch, ifRange: nil).verdict(tag: tag)
    }

    @Test(arguments: [
        "\"a\"", "*", " * ", "\"b\", \"a\"", "\"b\",\"a\"", ", ,\"a\",", "\t\"a\" ",
        "W/\"a\",\"a\"",
        "\"x,\", \"a\"",
    ])
    func `If-Match holds for the current tag`(field: String) {
        #expect(verdict(match: field, tag) == .proceed)
        #expect(verdict(noneMatch: field, tag) == .notModified)
    }

    @Test(arguments: [
        "\"b\"", "W/\"a\"", "a", "", "\"a", "\"a\"\"b\"", "\"a\" x", "w/\"a\"", "*,\"b\"",
        "\"x\"a\"",
    ])
    func `If-Match fails for another tag, a weak tag, and a malformed tag`(field: String) {
        #expect(verdict(match: field, tag) == .failed)
    }

    @Test func `content without a tag matches only a star`() {
        #expect(verdict(match: tag, nil) == .failed && verdict(match: "*", nil) == .proceed)
        #expect(verdict(noneMatch: tag, nil) == .proceed)
        #expect(verdict(noneMatch: "W/\"a\"", tag) == .notModified)
        #expect(verdict(noneMatch: "\"b\"", tag) == .proceed && verdict(nil) == .proceed)
        #expect(verdict(match: "\"b\"", noneMatch: tag, tag) == .failed)
    }

    @Test func `If-Range permits a range for the current strong tag alone`() {
        func allows(_ field: String?, _ tag: String?) -> Bool {
            Preconditions(ifMatch: nil, ifNoneMatch: nil, ifRange: field).allowsRange(tag: tag)
        }
        #expect(allows(nil, tag) && allows(nil, nil) && allows("\"a\"", tag))
        for field in ["\"b\"", "W/\"a\"", "\"a\",\"b\"", "Sun, 06 Nov 1994 08:49:37 GMT", "*", ""] {
            #expect(!allows(field, tag) && !allows(field, nil), "\(field)")
        }
        #expect(!allows("\"a\"", nil))
    }
}
