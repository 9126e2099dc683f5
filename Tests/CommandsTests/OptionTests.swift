// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import ArgumentParser
import BlockDevices
import SyncEngine
import TestSupport
import Testing
import WireProtocol

@testable import BlockReplication
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
    func `text that is no size is refused`(text: String) {
        #expect(ByteSize(text) == nil)
    }
}

@Suite struct FormatTests {
    @Test(arguments: [
        (0, "0 B"), (999, "999 B"), (1000, "0.98 KiB"), (1024, "1.00 KiB"), (1_048_576, "1.00 MiB"),
        (10_735_616, "10.2 MiB"), (1 << 40, "1.00 TiB"), (Int.max, "8.00 EiB"),
    ])
    func `bytes have three significant digits`(count: Int, text: String) {
        #expect(Format.bytes(count) == text)
    }

    @Test func `a percentage between nothing and all is never shown as 0 % or 100 %`() {
        #expect(Format.percent(1) == "100 %")
        #expect(Format.percent(0.9999999) == "99.99 %")
        #expect(Format.percent(0.0000001) == "0.01 %")
        #expect(Format.percent(0) == "0 %")
        #expect(Format.percent(0.12345) == "12.35 %" || Format.percent(0.12345) == "12.34 %")
    }

    @Test func `durations are short and readable`() {
        #expect(Format.seconds(0.184) == "0.18 s")
        #expect(Format.seconds(75.21) == "75.2 s")
        #expect(Format.seconds(3723) == "1:02:03")
        #expect(Format.clock(7) == "0:07")
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

    @Test func `a rotational disk gets two threads, other disks more, and -c any number`() throws {
        #expect(try threads([], isRotational: true) == 2)
        #expect(try (2...32).contains(threads([])))
        #expect(try (6...16).contains(threads([], isRemote: true)))
        #expect(try threads(["-c", "7"], isRotational: true) == 7)
    }

    @Test func `a long line gets more threads, unless their buffers are large or -c is given`()
        throws
    {
        func most(_ arguments: [String], block: Int = 4096) throws -> Int? {
            try ComparisonOptions.parse(arguments + ["/a", "/b"]).options()
                .mostThreads(layout: BlockLayout(block: block))
        }
        #expect(try most([]) == 32)
        #expect(try most([], block: 16 << 20) == 2)
        #expect(try most(["-c", "4"]) == nil)
    }

    @Test func `buffers stay small by default, and bounded on request`() throws {
        #expect(try threads([], block: 16 << 20) == 1)
        #expect(throws: ReplicationError.self) { try threads(["-c", "256"], block: 16 << 20) }
    }
}

@Suite(.blocking) struct UsageErrorTests {
    @Test(arguments: [
        (["ho\nst:/x", "target"], #"ho\nst:/x: it has white space"#),
        (["source", "http://a\nb/x"], #"http://a\nb/x: it has white space"#),
        (["source", "target", "-b", "1\rx"], #"1\rx"#), (["--fo\no", "a", "b"], #"'--fo\no'"#),
    ])
    func `a line end in an argument does not cut the message`(
        arguments: [String], message: String
    ) throws {
        let result = try RunningProgram([program] + arguments).wait()
        #expect(result.status == 64 && result.errors.contains(message))
        #expect(result.errors.split(separator: "\n").count == 2)
    }
}

@Suite(.blocking) struct ListenOptionTests {
    @Test(arguments: [
        (["--listen=8080"], true), (["-l", "8080", "--export", "a"], true), (["-l8080"], true),
        (["-v", "--listen", "8080"], true), (["-n", "a", "b"], false), (["a", "b"], false),
        (["list", "-l"], false), (["-n", "--", "-l", "b"], false), (["--help"], false),
    ])
    func `--listen means serve, as with pdiffcopy`(arguments: [String], isServer: Bool) {
        #expect(Blkferry.withSubcommand(arguments) == (isServer ? ["serve"] : []) + arguments)
    }

    @Test func `a server without a named export is refused`() throws {
        let result = try blkferry("--listen=8080")
        #expect(result.status == 64 && result.errors.contains("nothing is exported"))
    }

    @Test func `the error names a group or volume that a server does not find`() throws {
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

    @Test func `-v makes a server log every request`() throws {
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

@Suite struct ListenAddressTests {
    @Test(arguments: [
        ("::1", "[::1]:8080"), ("::", "[::]:8080"), ("2001:db8::1", "[2001:db8::1]:8080"),
        ("fe80::", "[fe80::]:8080"), ("1:2:3:4:5:6:7:8", "[1:2:3:4:5:6:7:8]:8080"),
        ("::ffff:192.0.2.1", "[::ffff:192.0.2.1]:8080"), ("::1:9000", "[::1]:9000"),
        (":::80", "[::]:80"), ("1:2:3:4:5:6:7:8:80", "[1:2:3:4:5:6:7:8]:80"),
    ])
    func `the advice for an IPv6 address without brackets shows the brackets`(
        text: String, advice: String
    ) {
        do throws(WireError) {
            _ = try ListenAddress(text)
            Issue.record("taken")
        } catch {
            #expect(error.reason.hasSuffix(": \(advice)"), "\(error.reason)")
        }
    }
}
