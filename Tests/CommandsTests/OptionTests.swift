// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import ArgumentParser
import BlockReplication
import SyncEngine
import TestSupport
import Testing

@testable import Commands

@Suite struct ByteSizeTests {
    @Test(arguments: [
        ("0", 0), ("4096", 4096), ("512B", 512), ("64K", 65536), ("64k", 65536), ("5K", 5120),
        ("1KiB", 1024), ("1kb", 1024), ("1MiB", 1 << 20), ("2G", 2 << 30), ("3T", 3 << 40),
        ("1P", 1 << 50), ("1.5 GB", 3 << 29), ("0.5K", 512), ("1 MiB", 1 << 20),
    ])
    func `sizes are read as people write them, in binary units`(text: String, bytes: Int) {
        #expect(ByteSize(text)?.bytes == bytes)
    }

    @Test(arguments: [
        "", "K", "x", "-1", "1X", "1KK", "1.2.3K", "1.5", "9223372036854775808", "9999999P", "1e3",
        "0x10", "١", "1 000",
    ])
    func `what is no size is refused`(text: String) {
        #expect(ByteSize(text) == nil)
    }
}

@Suite struct WordingTests {
    @Test(arguments: [
        (0, "0 B"), (999, "999 B"), (1000, "0.98 KiB"), (1024, "1.00 KiB"), (1_048_576, "1.00 MiB"),
        (10_735_616, "10.2 MiB"), (1 << 40, "1.00 TiB"), (Int.max, "8.00 EiB"),
    ])
    func `bytes have three significant digits`(count: Int, text: String) {
        #expect(Wording.bytes(count) == text)
    }

    @Test func `a share that is not all and not nothing never looks like it`() {
        #expect(Wording.percent(1) == "100 %")
        #expect(Wording.percent(0.9999999) == "99.99 %")
        #expect(Wording.percent(0.0000001) == "0.01 %")
        #expect(Wording.percent(0) == "0 %")
        #expect(Wording.percent(0.12345) == "12.35 %" || Wording.percent(0.12345) == "12.34 %")
    }

    @Test func `durations are short and readable`() {
        #expect(Wording.seconds(0.184) == "0.18 s")
        #expect(Wording.seconds(75.21) == "75.2 s")
        #expect(Wording.seconds(3723) == "1:02:03")
        #expect(Wording.clock(7) == "0:07")
    }
}

@Suite struct ConcurrencyTests {
    private func threads(
        _ arguments: [String], block: Int = 4096, isRotational: Bool = false,
        isRemote: Bool = false
    ) throws -> Int {
        try ComparisonOptions.parse(arguments + ["/a", "/b"]).options()
            .threads(
                layout: BlockLayout(block: block), isRotational: isRotational, isRemote: isRemote)
    }

    @Test func `a rotational disk gets two threads, others several a processor, a user his wish`()
        throws
    {
        #expect(try threads([], isRotational: true) == 2)
        #expect(try (2...32).contains(threads([])))
        #expect(try (6...16).contains(threads([], isRemote: true)))
        #expect(try threads(["-c", "7"], isRotational: true) == 7)
    }

    @Test func `buffers stay small by themselves, and bounded on request`() throws {
        #expect(try threads([], block: 16 << 20) == 1)
        #expect(throws: ReplicationError.self) { try threads(["-c", "256"], block: 16 << 20) }
    }
}

@Suite struct ListenOptionTests {
    @Test(arguments: [
        (["--listen=8080"], true), (["-l", "8080", "--export", "a"], true), (["-l8080"], true),
        (["-v", "--listen", "8080"], true), (["-n", "a", "b"], false), (["a", "b"], false),
        (["list", "-l"], false), (["-n", "--", "-l", "b"], false), (["--help"], false),
    ])
    func `to listen is to serve, as with pdiffcopy`(arguments: [String], isServer: Bool) {
        #expect(Blkferry.withSubcommand(arguments) == (isServer ? ["serve"] : []) + arguments)
    }

    @Test func `nothing is served that was not named`() throws {
        let result = try blkferry("--listen=8080")
        #expect(result.status == 64 && result.errors.contains("nothing is exported"))
    }

    @Test func `a server says which group or volume is not there`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 1 << 20)
        let server = try ServeProcess(
            image, "no-such-sda1:rw", "no-such-group/root", "no-such-group/new:rw,create")
        let lines = try server.log().split(separator: "\n").filter { $0.contains("there is no") }
        #expect(lines.count == 2, "\(lines)")
        #expect(lines.first?.contains("export=no-such-sda1 ") == true)
        #expect(lines.first?.hasSuffix("exported by its path") == true)
        #expect(lines.last?.contains("export=/dev/no-such-group/root ") == true)
    }

    @Test func `a server logs every request where that is wanted`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 1 << 20)
        let (verbose, usual) = (
            try ServeProcess(image, options: ["-v"]), try ServeProcess(image, options: [])
        )
        for server in [verbose, usual] {
            #expect(try blkferry("list", "http://127.0.0.1:\(server.port)").status == 0)
        }
        let log = try verbose.log()
        #expect(log.contains("path=/v1/devices") && log.contains("status=200"), "\(log)")
        #expect(try !usual.log().contains("path="))
    }
}
