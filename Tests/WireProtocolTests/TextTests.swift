// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import Testing
import WireProtocol

@Suite struct RouteTests {
    static let names = [
        "UUID=1-2", "/dev/vg0/root", "/srv/a b.img", "a/b?c#d%e", "LABEL=é😀", ".", "..", "+&;:@",
        "/\u{301}x", "\r\n", "x\u{7f}",
    ]

    @Test(arguments: names) func `a path leads to its route`(name: String) {
        for route in [
            Route.device(name), .content(name), .sessions(device: name), .session(name),
            .compare(session: name), .read(session: name), .write(session: name),
            .commit(session: name),
        ] {
            #expect(Route(route.path) == route)
            #expect(Route(route.path + "/") == route && Route(route.path + "?a=/b") == route)
            #expect(route.path.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F })
        }
    }

    @Test func `one slash at the end of a path is allowed`() {
        #expect(Route("/v1") == .info && Route("/v1/") == .info && Route("/v1?x") == .info)
        #expect(Route("/v1/devices/") == .devices)
        for path in ["//v1", "/v1//", "/v1//devices", "/v1/devices//", "/v1/devices//content"] {
            #expect(Route(path) == nil, "\(path)")
        }
    }

    @Test func `an encoded slash belongs to the name`() {
        #expect(Route("/v1/devices/%2Fdev%2fsda") == .device("/dev/sda"))
        #expect(Route("/v1/devices/a%2Fcontent") == .device("a/content"))
        #expect(Route("/v1%2Fdevices") == nil)
    }

    @Test(
        arguments: [
            "", "v1", "*", "/", "/v2", "/V1", "/v1/device", "/v1/devices/a/b", "/v1/sessions",
            "/v1/sessions/a/content", "/v1/devices/a/content/b", "/infos", "http://h/v1",
            "/v1/devices/%", "/v1/devices/%4", "/v1/devices/%4g", "/v1/devices/%g4",
            "/v1/devices/%00", "/v1/devices/%FF", "/v1/devices/%C3", "/v1/devices/%ED%A0%80",
            "/v1/devices/%C0%AF",
        ])
    func `any other path has no route`(target: String) { #expect(Route(target) == nil) }

    @Test func `a request target may have 8192 bytes`() {
        let start = "/v1/devices/"
        let room = 8192 - start.utf8.count
        #expect(Route(start + String(repeating: "a", count: room)) != nil)
        #expect(Route(start + String(repeating: "a", count: room + 1)) == nil)
        #expect(Route(String(repeating: "/", count: 1 << 20)) == nil)
    }

    @Test func `percent and hexadecimal encoding write one form, and read any letters`() {
        #expect(
            percentEncoded("aZ09-_.~=") == "aZ09-_.~="
                && percentEncoded("/ %é") == "%2F%20%25%C3%A9")
        #expect(percentDecoded("%2f+%C3%A9") == "/+é" && percentDecoded("") == "")
        #expect(hexadecimal([0, 0x1f, 0xff]) == "001fff" && hexadecimal([]) == "")
        #expect(bytes(fromHexadecimal: "001FfF") == [0, 0x1f, 0xff])
        for text in ["0", "0g", "é", " 00", "0x00"] { #expect(bytes(fromHexadecimal: text) == nil) }
    }
}

/// RFC 9110, section 14.
@Suite struct RangeRequestTests {
    private func asked(_ header: String?, _ size: Int = 500) -> RangeRequest {
        RangeRequest(header, size: size)
    }

    private func part(_ first: Int, _ last: Int) -> RangeRequest {
        .part(ByteRange(first, to: last + 1))
    }

    @Test func `a range has a first and a last byte, a start, or the length of the end`() {
        #expect(asked("bytes=0-0") == part(0, 0) && asked("bytes=0-499") == part(0, 499))
        #expect(asked("bytes=499-499") == part(499, 499) && asked("bytes=10-") == part(10, 499))
        #expect(asked("bytes=-1") == part(499, 499) && asked("bytes=-500") == part(0, 499))
        #expect(asked("bytes=0-500") == part(0, 499) && asked("bytes=-501") == part(0, 499))
        #expect(asked("BYTES= \t1-2 \t") == part(1, 2) && asked("bytes=007-008") == part(7, 8))
    }

    @Test func `a range outside the content is unsatisfiable`() {
        for header in ["bytes=500-", "bytes=500-600", "bytes=-0"] {
            #expect(asked(header) == .unsatisfiable)
        }
        for header in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
            #expect(asked(header, 0) == .unsatisfiable)
        }
    }

    @Test func `a range has numbers of any size`() {
        let huge = "99999999999999999999999999"
        #expect(asked("bytes=1-\(huge)") == part(1, 499) && asked("bytes=-\(huge)") == part(0, 499))
        #expect(asked("bytes=\(huge)-") == .unsatisfiable)
        #expect(asked("bytes=\(Int.max)-\(huge)") == .unsatisfiable)
        #expect(asked("bytes=0-\(Int.max)", .max) == part(0, Int.max - 1))
        #expect(asked("bytes=-\(huge)", .max) == part(0, Int.max - 1))
    }

    @Test(
        arguments: [
            nil, "", "bytes", "bytes=", "bytes=-", "bytes=1", "bytes=2-1", "bytes=0-1,3-4",
            "items=0-1", "bytes =0-1", "bytes=0 -1", "bytes=0- 1", "bytes=+0-1", "bytes=0--1",
            "bytes=0x0-1", "bytes=0-1;", "bytes=a-b", "bytes=٠-١", "bytes=0-1-2", "=0-1",
        ] as [String?])
    func `a malformed range is ignored`(header: String?) {
        #expect(asked(header) == .all)
    }
}

@Suite struct LocationTests {
    private func remote(_ text: String) throws -> RemoteLocation {
        guard case .remote(let location) = try Location(text) else {
            throw WireError("\(text) is local")
        }
        return location
    }

    @Test(
        arguments: [
            "/dev/sda", "UUID=1", "a b", "", "/x://y", "a/b://c", "./a:b", "../a:b", "vg0/lv:x",
            "UUID=aa:bb", "LABEL=x:y", "LABEL=a@h:/x", "PARTLABEL=EFI:1", "LVUUID=h:/x",
            "/dev/disk/by-id/scsi-0:0", "a@b", "a@b/c:d", "-", "./é:x",
        ])
    func `a location without a scheme and without a colon before the first slash is local`(
        text: String
    )
        throws
    {
        #expect(try Location(text) == .local(Selector(text)))
    }

    @Test func `a URL has a server and a selector`() throws {
        for (text, server, selector) in [
            ("http://host/dev/vg0/root", "http://host:8080", "/dev/vg0/root"),
            ("HTTPS://Host:443/UUID=1-2", "https://Host:443", "UUID=1-2"),
            ("http://192.0.2.1:1/LABEL=a%20b%23", "http://192.0.2.1:1", "LABEL=a b#"),
            ("http://[::1]/dev/sda", "http://[::1]:8080", "/dev/sda"),
            ("http://[fe80::1%25eth0]/x", "http://[fe80::1%eth0]:8080", "/x"),
            ("http://[2001:db8::192.0.2.1]:65535/x", "http://[2001:db8::192.0.2.1]:65535", "/x"),
            ("http://h", "http://h:8080", nil), ("http://h/", "http://h:8080", nil),
            ("http://h:080/x", "http://h:80", "/x"),
            ("http://h//UUID=x", "http://h:8080", "//UUID=x"),
            ("http://h/a%2Fb%25", "http://h:8080", "/a/b%"),
            ("http://h/a:b@c", "http://h:8080", "/a:b@c"),
            ("http://bücher/é", "http://bücher:8080", "/é"),
            ("http://h/%CC%81a", "http://h:8080", "/\u{301}a"),
            ("http://h/UUID=/x", "http://h:8080", "UUID=/x"),
            ("http://h/PATH=x", "http://h:8080", "/PATH=x"),
            ("http://h/WWN=0x1", "http://h:8080", "WWN=0x1"),
            ("ssh://h/dev/sda", "ssh://h", "/dev/sda"), ("ssh://h", "ssh://h", nil),
            ("SSH://root@h:2222/LVUUID=a-b", "ssh://root@h:2222", "LVUUID=a-b"),
            ("ssh://a.b+c@[fe80::1%e]/x", "ssh://a.b+c@[fe80::1%e]", "/x"),
            ("ssh://[::1]:22/a:b@c", "ssh://[::1]:22", "/a:b@c"),
        ] as [(String, String, String?)] {
            let location = try remote(text)
            #expect(location.server == server && location.selector == selector, "\(text)")
            #expect(location.text == text)
        }
    }

    @Test func `scp's form is a URL of ssh, with the path as it stands`() throws {
        for (text, server, selector) in [
            ("h:/dev/sda", "ssh://h", "/dev/sda"), ("root@h:/x", "ssh://root@h", "/x"),
            ("h:UUID=1-2", "ssh://h", "UUID=1-2"), ("u@h:LABEL=a:b/c", "ssh://u@h", "LABEL=a:b/c"),
            ("[::1]:/x", "ssh://[::1]", "/x"),
            ("a+b@[fe80::1%e]:/x", "ssh://a+b@[fe80::1%e]", "/x"),
            ("h:/a b?c#d%20", "ssh://h", "/a b?c#d%20"), ("h:/a@b:c", "ssh://h", "/a@b:c"),
            ("C:/x", "ssh://C", "/x"), ("h:", "ssh://h", nil), ("h:/", "ssh://h", nil),
            ("h://x/y", nil, nil), ("u@h://x", "ssh://u@h", "//x"),
            ("h:/\u{301}x", "ssh://h", "/\u{301}x"), ("192.0.2.1:/x", "ssh://192.0.2.1", "/x"),
        ] as [(String, String?, String?)] {
            guard let server else {
                #expect(rejection { try Location(text) } != nil, "\(text)")
                continue
            }
            let location = try remote(text)
            #expect(location.server == server && location.selector == selector, "\(text)")
            #expect(location.text == text && location.scheme == .ssh && location.port == nil)
        }
    }

    @Test(
        arguments: [
            "root@backup:disk.img", "host:disk.img", "a:b", "host:8080/path", "x:~/y",
            "C:\\disk.img",
            "disk 12:30.img", "-oProxyCommand=x:/y", "-h:/x", ":x", ":/x", "::1:/x", "fe80::1:/x",
            "[::1]:22:/x", "u@:/x", "@h:/x", "u:p@h:/x", "a=b:/x", "uuid=1:2", "h:NAME=x",
            "h:/WWN=1",
            "é:\u{301}x", "h:vg0/lv", "[::1]x:/y", "a@b@h:/x", "h:\u{301}/x", "[::1", "[::1]",
            "x:y@z",
        ])
    func `scp's form without an absolute path is no local file`(text: String) {
        let reason = rejection { try Location(text) }
        #expect(reason?.hasPrefix(text) == true && reason?.hasSuffix(" ./\(text)") == true)
    }

    @Test(arguments: ["http:/x", "HTTPS:x", "ssh:/h/x"])
    func `the error says that a URL lacks a slash`(text: String) {
        #expect(rejection { try Location(text) }?.hasPrefix("\(text): a URL has two") == true)
    }

    @Test(arguments: [
        ("http://::1:8080/x", "[::1]:8080"), ("http://::1/x", "[::1]"),
        ("http://fe80::1:2:443/x", "[fe80::1:2]:443"), ("http://fe80::/x", "[fe80::]"),
        ("http://fe80:::80/x", "[fe80::]:80"), ("http://1:2:3:4:5:6:7:8/x", "[1:2:3:4:5:6:7:8]"),
        ("http://1:2:3:4:5:6:7:8:80/x", "[1:2:3:4:5:6:7:8]:80"),
        ("http://2001:db8::a/x", "[2001:db8::a]"),
    ])
    func `an IPv6 address needs brackets, and its port is outside of them`(
        text: String, advice: String
    ) {
        #expect(rejection { try Location(text) }?.hasSuffix(" in brackets: \(advice)") == true)
    }

    @Test(
        arguments: [
            "ftp://h/x", "://x", "http+unix:///x", "http://", "http:///x", "http://:80/x",
            "http://h:/x",
            "http://h:0/x", "http://h:65536/x", "http://h:+80/x", "http://h:8 0/x",
            "http://h:99999999999999999999/x", "http://h:x/", "http://::1/x", "http://[::1/x",
            "http://[]/x", "http://[e%25]/x", "http://[::1%]/x", "http://[::1]x/", "http://[g::]/x",
            "http://[::1]:/x", "http://u@h/x",
            "http://u:p@h/x", "http://h/x?y", "http://h/x#y", "http://h?x", "http://h/a b",
            "http://h/a\tb", "http://h/a\n", "http://h/\u{7f}", "http://h/%", "http://h/%zz",
            "http://h/%00", "ssh://-h/x", "ssh://-l@h/x", "ssh://@h/x", "ssh://u@/x",
            "ssh://a@b@h/x",
            "ssh://u:p@h/x", "ssh://u$x@h/x", "ssh://h;x/x", "ssh://h:/x", "ssh://h:-p/x",
            "ssh://h/WWN=0x1", "ssh://h/SERIAL=1", "ssh://h/NAME=1", "http://h/%FF", "http://h!/x",
            "http://h\\/x", "http://%41/x",
        ])
    func `the error names a URL that cannot be used`(text: String) {
        #expect(rejection { try Location(text) }?.hasPrefix(text) == true)
    }
}

@Suite struct ExportTests {
    private func file(_ text: String) throws -> [ExportSelector] {
        try exports(inFile: text, named: "/etc/exports")
    }

    @Test func `an export is a selector, with an access or without`() throws {
        for (text, name, access, isDirectory) in [
            ("/dev/sda", "/dev/sda", .readOnly, false),
            ("/dev/sda:rw", "/dev/sda", .readWrite, false),
            ("/a:b:ro", "/a:b", .readOnly, false), ("/a:RW", "/a:RW", .readOnly, false),
            ("/x:ro:rw", "/x:ro", .readWrite, false),
            ("/srv/images/:rw", "/srv/images/", .readWrite, true),
            ("UUID=1-2:rw", "UUID=1-2", .readWrite, false),
            ("LABEL=a/", "LABEL=a/", .readOnly, false),
            ("LABEL=a b#c", "LABEL=a b#c", .readOnly, false),
            // A character that makes one with what follows it.
            ("/x\u{600}:rw", "/x\u{600}", .readWrite, false),
        ] as [(String, String, ExportAccess, Bool)] {
            let export = try ExportSelector(text)
            #expect(export.text == name && export.access == access, "\(text)")
            #expect(export.isDirectory == isDirectory, "\(text)")
        }
    }

    @Test(
        arguments: [
            "", ":ro", ":rw", "x/y/z", "dev/sda", "mapper/x", "./x", ".x/y", "x/", "x/ y", "x/-y",
            "x y", "uuid=1", "UUID=", "LABEL=:rw", " /x", "..",
            "-x", "*", "x/**", ":rw,create", "/srv/x:rw,create", "/srv/:rw,create",
            "/dev/x/:rw,create", "/dev/vg0:rw,create", "UUID=1:rw,create",
        ])
    func `an export that is no tag, absolute path or group is rejected`(text: String) {
        #expect(rejection { try ExportSelector(text) } != nil)
    }

    @Test func `an export is a volume group, alone or with a star, and may allow new volumes`()
        throws
    {
        for (text, access, canCreate) in [
            ("vg0", .readOnly, false), ("vg0/*", .readOnly, false), ("vg0:rw", .readWrite, false),
            ("vg0/*:rw", .readWrite, false), ("vg0:rw,create", .readWrite, true),
            ("vg0/*:ro", .readOnly, false),
        ] as [(String, ExportAccess, Bool)] {
            let export = try ExportSelector(text)
            #expect(export.group == "vg0" && export.text == "/dev/vg0/", "\(text)")
            #expect(export.access == access && export.canCreate == canCreate, "\(text)")
            #expect(!export.isDirectory && export.hasAccess == text.contains(":"), "\(text)")
        }
        let one = try ExportSelector("/dev/vg0/new@pool:rw,create")
        #expect(one.text == "/dev/vg0/new@pool" && one.canCreate && one.group == nil)
        // Snapshots may be taken of what turns out to be a volume.
        for text in ["LVUUID=x", "/dev/mapper/vg0-new", "/dev/disk/by-id/x"] {
            let export = try ExportSelector(text + ":rw,create")
            #expect(export.text == text && export.canCreate && export.access == .readWrite)
        }
        #expect(try ExportSelector("/dev/vg0/").group == nil)
        #expect(try ExportSelector("/dev/vg0/").isDirectory)
    }

    @Test func `an export is a volume by its group and name`() throws {
        for (text, name, access, canCreate) in [
            ("vg0/root", "/dev/vg0/root", .readOnly, false),
            ("vg0/root:rw", "/dev/vg0/root", .readWrite, false),
            ("vg1/x@pool:rw,create", "/dev/vg1/x@pool", .readWrite, true),
        ] as [(String, String, ExportAccess, Bool)] {
            let export = try ExportSelector(text)
            #expect(export.text == name && export.access == access, "\(text)")
            #expect(export.isVolumeName && export.canCreate == canCreate && export.group == nil)
            var again = try ExportSelector(export.line)
            again.hasAccess = export.hasAccess
            #expect(again == export)
        }
        for text in ["vg0", "/dev/vg0/root", "UUID=a"] {
            #expect(try !ExportSelector(text).isVolumeName)
        }
    }

    @Test func `exports that differ only in their Unicode form are different`() throws {
        for prefix in ["/srv/", "LABEL=", "PARTLABEL="] {
            let composed = try ExportSelector("\(prefix)caf\u{e9}")
            let decomposed = try ExportSelector("\(prefix)cafe\u{301}")
            #expect(composed != decomposed)
            #expect(Set([composed, decomposed, composed]).count == 2)
        }
        #expect(ExportSelector.isTag("LABEL=\u{301}x"))
    }

    @Test func `an exports file has comments, white space and line ends of any kind`() throws {
        let text = "# all\n\n /dev/a:rw\t# x\r\n\t/b#c:ro \r\n/d #\n  # e\n#/f\nLABEL=g h\r/i"
        let found = try file(text)
        #expect(found.map(\.text) == ["/dev/a", "/b#c", "/d", "LABEL=g h", "/i"])
        #expect(found.map(\.access) == [.readWrite, .readOnly, .readOnly, .readOnly, .readOnly])
        #expect(try file("").isEmpty && file("#").isEmpty && file("\n\r\n \t").isEmpty)
    }

    @Test func `an error in an exports file has file and line`() {
        #expect(rejection { try file("/a\n\n ./c\n") }?.hasPrefix("/etc/exports:3: ./c: ") == true)
        #expect(rejection { try file("/a\r\n/b\r\nUUID=") }?.hasPrefix("/etc/exports:3: ") == true)
        #expect(rejection { try file(":rw # x") }?.hasPrefix("/etc/exports:1: :rw: ") == true)
    }
}
