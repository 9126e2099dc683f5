// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Testing
import WireProtocol

/// Queries of pdiffcopy's protocol.
@Suite struct PdiffcopyCallTests {
    private func call(_ query: String) -> PdiffcopyCall { PdiffcopyCall(.blocks, query: query) }

    @Test(arguments: PdiffcopyCall.Endpoint.allCases)
    func `an endpoint is one segment, and its query is kept`(endpoint: PdiffcopyCall.Endpoint)
        throws
    {
        let name = endpoint.rawValue
        let call = try #require(PdiffcopyCall("/\(name)?filename=%2Fa%20b&size=7"))
        #expect(call == PdiffcopyCall(endpoint, query: "filename=%2Fa%20b&size=7"))
        #expect(PdiffcopyCall(call.path) == call)
        #expect(PdiffcopyCall("/\(name)") == PdiffcopyCall(endpoint, query: ""))
        #expect(PdiffcopyCall("/\(name)?a?b=/c#d") == PdiffcopyCall(endpoint, query: "a?b=/c"))
        for path in ["/\(name)/", "//\(name)", "/\(name)/x", "/v1/\(name)", "/%zz"] {
            #expect(PdiffcopyCall(path) == nil, "\(path)")
        }
    }

    @Test func `the methods of an endpoint are those of pdiffcopy`() {
        func methods(_ endpoint: PdiffcopyCall.Endpoint) -> [String] {
            PdiffcopyCall(endpoint, query: "").methods
        }
        #expect(methods(.info) == ["GET", "HEAD"] && methods(.hashes) == ["GET", "HEAD"])
        #expect(methods(.blocks) == ["GET", "POST"] && methods(.resize) == ["POST"])
    }

    @Test(arguments: [
        ("filename=/a", "/a"), ("filename=%2Fa%2fb", "/a/b"), ("x=1&filename=/a&y", "/a"),
        ("filename=/a+b%2Bc", "/a b+c"), ("filename=/a%3D=%26", "/a==&"),
        ("file%6Eame=/a", "/a"), ("filename=/1&filename=/2", "/1"), ("&&filename=/a&&", "/a"),
        ("filename=/%C3%A9\u{1F600}", "/é\u{1F600}"), ("filename=/a;b", "/a;b"),
        ("filename=/\u{301}", "/\u{301}"), ("%zz=1&filename=/a", "/a"), ("filename=/%250", "/%0"),
    ])
    func `a file name is decoded as a form field`(query: String, name: String) throws {
        #expect(try call(query).filename() == name)
    }

    @Test(arguments: [
        "", "filename", "filename=", "filename=a", "filename=%41", "Filename=/a", "filename=/%",
        "filename=/%4", "filename=/%zz", "filename=/%00", "filename=/%FF", "filename=/%C3",
        "filename=/%ED%A0%80", "filename=/%&filename=/a", "filename+=/a", "=filename=/a",
        "filename=+/a",
    ])
    func `a file name that is no absolute path is rejected`(query: String) {
        #expect(throws: WireError.self) { try call(query).filename() }
    }

    @Test(arguments: [
        ("offset=0", 0), ("offset=007", 7), ("offset=4096&offset=1", 4096), ("offset=%31%30", 10),
        ("offset=\(Int.max)", Int.max),
    ])
    func `a number consists of digits`(query: String, number: Int) throws {
        #expect(try call(query).number("offset", in: 0...Int.max) == number)
    }

    @Test(arguments: [
        "", "offset", "offset=", "offset=-1", "offset=%2B1", "offset=+1", "offset=1+", "offset=1_0",
        "offset=0x10", "offset=1.0", "offset=1e3", "offset=x", "offset=٣", "offset=%D9%A3",
        "offset=9223372036854775808", "offset=99999999999999999999999", "offset=%", "offset=1%00",
    ])
    func `a number with any other character is rejected`(query: String) {
        #expect(throws: WireError.self) { try call(query).number("offset", in: 0...Int.max) }
    }

    @Test func `a number has its range, and a default where it may be missing`() throws {
        #expect(try call("a=5").number("b", in: 1...9, default: 3) == 3)
        #expect(try call("b=9").number("b", in: 1...9, default: 3) == 9)
        for query in ["b=0", "b=10", "b="] {
            #expect(throws: WireError.self) {
                try call(query).number("b", in: 1...9, default: 3)
            }
        }
    }
}
