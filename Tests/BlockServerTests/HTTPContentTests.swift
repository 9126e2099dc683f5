// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import TestSupport
import Testing
import WireProtocol

/// A device's raw bytes, whole and in ranges (RFC 9110, section 14), and programs that read them.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPContentTests {
    private static let size = (3 << 20) + 1234
    private let served: ServedImage

    init() throws { served = try ServedImage(size: Self.size) }

    /// What a Range header gets: the first byte and the byte after the last; `nil` for 416.
    private static let ranges: [(header: String, first: Int, end: Int)] = [
        ("bytes=0-0", 0, 1), ("bytes=0-4095", 0, 4096), ("bytes=1-1", 1, 2),
        ("bytes=511-513", 511, 514), ("bytes=4095-1048577", 4095, 1_048_578),
        ("BYTES=7-9", 7, 10), ("bytes= 7-9 ", 7, 10),
        ("bytes=3000000-", 3_000_000, size), ("bytes=\(size - 1)-", size - 1, size),
        ("bytes=\(size - 1)-\(size - 1)", size - 1, size), ("bytes=0-", 0, size),
        ("bytes=-1", size - 1, size), ("bytes=-1000", size - 1000, size),
        ("bytes=-\(size)", 0, size), ("bytes=-99999999", 0, size),
        ("bytes=5-99999999999999999999999", 5, size), ("bytes=5-\(Int.max)", 5, size),
    ]

    @Test(arguments: ranges.indices) func `a single range is answered with 206`(index: Int) throws {
        let (header, first, end) = Self.ranges[index]
        let answer = try served.ask("GET", ["Range: \(header)"])
        #expect(answer.status == 206)
        #expect(answer.headers["content-range"] == "bytes \(first)-\(end - 1)/\(Self.size)")
        #expect(answer.headers["content-length"] == "\(end - first)")
        #expect(answer.headers["accept-ranges"] == "bytes")
        #expect(answer.body == Array(served.image.bytes[first..<end]))
    }

    @Test(arguments: [
        "bytes=\(size)-", "bytes=\(size)-\(size + 5)", "bytes=99999999999999999999-", "bytes=-0",
    ])
    func `a range beyond the end is answered with 416`(header: String) throws {
        let answer = try served.ask("GET", ["Range: \(header)"])
        #expect(answer.status == 416 && answer.problem == .malformed)
        #expect(answer.headers["content-range"] == "bytes */\(Self.size)")
    }

    @Test(arguments: [
        ["Range: bytes=0-1,5-6"], ["Range: bytes=0-1", "Range: bytes=5-6"], ["Range: bytes=5-4"],
        ["Range: items=0-1"], ["Range: bytes=a-b"], ["Range: bytes="], ["Range: bytes=-"],
        ["Range: bytes=+1-2"], ["Range: bytes=0x1-2"], ["Range: 0-1"], ["Range:"], [],
        ["Range: bytes=0-1", "If-Range: \"x\""],
        ["Range: bytes=0-1", "If-Range: Wed, 21 Oct 2015 07:28:00 GMT"],
    ])
    func `a request without a valid single range gets the whole content`(headers: [String]) throws {
        let answer = try served.ask("GET", headers)
        #expect(answer.status == 200 && answer.body == served.image.bytes)
        #expect(answer.headers["content-range"] == nil)
        #expect(answer.headers["accept-ranges"] == "bytes")
        #expect(answer.headers["content-type"] == "application/octet-stream")
    }

    /// RFC 9110, section 14.2: only GET has ranges.
    @Test(arguments: [[], ["Range: bytes=5-9"], ["Range: bytes=\(size)-"]])
    func `HEAD has the size of the whole content, and no body`(headers: [String]) throws {
        let connection = try HTTPConnection(port: served.server.port)
        let answer = try connection.ask("HEAD", served.path, headers)
        #expect(answer.status == 200)
        #expect(answer.headers["content-length"] == "\(Self.size)")
        #expect(answer.headers["accept-ranges"] == "bytes")
        // Nothing of a body precedes the next answer.
        #expect(
            try connection.ask("GET", served.path, ["Range: bytes=0-2"]).body
                == Array(served.image.bytes[..<3]))
    }

    @Test func `a device with sectors of 4096 bytes is read at every offset`() throws {
        guard isRoot else { return }
        let loop = try LoopDevice(size: 1 << 20, sectorSize: 4096)
        try must(
            "dd", "if=\(served.image.path)", "of=\(loop.path)", "bs=1M", "count=1", "conv=fsync")
        let server = try TestServer(loop.path)
        let path = Route.content(loop.path).path
        for (first, end) in [(0, 1), (511, 4097), (4095, 4096), (1_048_575, 1 << 20), (1, 1 << 20)]
        {
            let answer = try server.ask("GET", path, ["Range: bytes=\(first)-\(end - 1)"])
            #expect(answer.status == 206 && answer.body == Array(served.image.bytes[first..<end]))
        }
    }

    @Test func `an image that shrinks while it is sent ends the connection early`() throws {
        let large = try served.scratch.sparseFile("large", size: 256 << 20)
        let server = try TestServer(large)
        let connection = try HTTPConnection(port: server.port)
        try connection.send(HTTPConnection.request("GET", Route.content(large).path))
        _ = try connection.socket.receive(count: 1 << 20)
        truncate(large, 4096)
        var count = 1 << 20
        while case let more = try connection.socket.receive().count, more > 0 { count += more }
        #expect(count < 256 << 20)
        #expect(becomesTrue { server.server.freeMemory == 64 << 20 })
        #expect(try server.ask("GET", "/v1").status == 200)
    }
}

/// Programs that know nothing of blkferry read a device.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPForeignClientTests {
    private let scratch: ScratchDirectory
    private let image: SeededImage
    private let server: TestServer
    private let url: String

    init() throws {
        scratch = try ScratchDirectory()
        // Whole sectors: qemu and NBD have no others.
        image = try SeededImage(scratch, size: (5 << 20) + 512)
        server = try TestServer(image.path)
        url = "http://127.0.0.1:\(server.port)\(Route.content(image.path).path)"
    }

    @Test(.enabled(if: isInstalled("curl"), "curl is not installed"))
    func `curl reads ranges and the whole content`() throws {
        let copy = scratch.file("copy")
        for (range, first, end) in [
            ("0-0", 0, 1), ("1000-70000", 1000, 70001), ("5242880-", 5 << 20, image.bytes.count),
            ("-100", image.bytes.count - 100, image.bytes.count),
        ] {
            try must("curl", "-sSf", "-r", range, "-o", copy, url)
            #expect(try [UInt8](contentsOf: copy) == Array(image.bytes[first..<end]))
        }
        try must("curl", "-sSf", "-o", copy, url)
        #expect(try [UInt8](contentsOf: copy) == image.bytes)
        // It goes on where it stopped.
        truncate(copy, 12345)
        try must("curl", "-sSf", "-C", "-", "-o", copy, url)
        #expect(try [UInt8](contentsOf: copy) == image.bytes)
        #expect(try must("curl", "-sSfI", url).contains("Accept-Ranges: bytes"))
    }

    private static let hasQemu: Bool = {
        guard let help = try? run("qemu-img", "--help") else { return false }
        let formats = help.output.split(separator: "\n").first { $0.contains("formats:") } ?? ""
        return formats.contains(" http") || isInstalled("/usr/lib/*/qemu/block-curl.so")
    }()

    @Test(.enabled(if: hasQemu, "qemu-img has no curl driver (qemu-block-extra)"))
    func `qemu-img reads a device`() throws {
        let copy = scratch.file("copy")
        // One request at a time: with several, the driver of QEMU 7.2 waits for ever now and then,
        // whatever server it reads from.
        try must("qemu-img", "convert", "-m", "1", "-f", "raw", "-O", "raw", url, copy)
        #expect(try [UInt8](contentsOf: copy) == image.bytes)
        let json = "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"http\",\"url\":\"\(url)\"}}"
        #expect(try must("qemu-img", "info", json).contains("(\(image.bytes.count) bytes)"))
        #expect(try must("qemu-img", "compare", "-f", "raw", "-F", "raw", url, image.path) != "")
    }

    private static let hasNBDKit: Bool =
        isInstalled("nbdkit") && isInstalled("nbdcopy")
        && (try? run("nbdkit", "curl", "--version").status) == 0

    @Test(.enabled(if: hasNBDKit, "nbdkit, its curl plugin or nbdcopy is not installed"))
    func `nbdkit reads a device`() throws {
        let copy = scratch.file("copy")
        let socket = scratch.file("socket")
        // The socket exists before nbdkit listens; this file exists only afterwards.
        let ready = scratch.file("pid")
        let nbdkit = try RunningProgram(
            ["nbdkit", "-f", "-r", "-P", ready, "-U", socket, "curl", url])
        #expect(becomesTrue { FileManager.default.fileExists(atPath: ready) })
        try must("nbdcopy", "nbd+unix:///?socket=\(socket)", copy)
        #expect(nbdkit.isRunning)
        #expect(try [UInt8](contentsOf: copy) == image.bytes)
    }
}
