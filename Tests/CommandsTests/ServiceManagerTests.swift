// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import Glibc
import TestSupport
import Testing

/// `serve` as systemd starts it.
@Suite(.blocking, .timeLimit(.minutes(60))) struct ServiceManagerTests {
    private let scratch: ScratchDirectory
    private let image: String

    init() throws {
        scratch = try ScratchDirectory()
        image = try scratch.filledFile("image", size: 1 << 20, seed: 3)
    }

    /// A server that listens; `options` come behind `serve`.
    private func serve(
        _ prefix: [String], _ options: String..., environment: [String: String] = [:]
    ) throws -> RunningProgram {
        let server = try RunningProgram(
            prefix + [program, "serve", "--export", image] + options, environment: environment)
        try server.waitUntil(says: "listening\n")
        let log = try server.errorsSoFar()
        #expect(server.isRunning, "\(log)")
        return server
    }

    /// The addresses where a server listens, from its log.
    private func addresses(_ server: RunningProgram, count: Int) throws -> [String] {
        func found() throws -> [String] {
            try server.errorsSoFar().matches(of: /address=(\S+) .*listening\n/).map { String($0.1) }
        }
        #expect(try becomesTrue { try found().count >= count })
        return try found()
    }

    @Test func `a server uses the sockets that it is passed, and leaves them as they are`() throws {
        let socket = scratch.file("socket")
        let sockets = ["tcp=127.0.0.1", "tcp=::1", "unix=\(socket)", "unix=@\(socket)"]
        let unix = ["--unix-socket", socket, "http://localhost/v1"]
        let server = try serve(passing(sockets))
        let addresses = try addresses(server, count: 4)
        #expect(addresses.count == 4 && addresses.last == "unix:@\(socket)", "\(addresses)")
        for address in addresses.dropLast() {
            let location = address.hasPrefix("unix:") ? "\(address):" : "http://\(address)"
            #expect(try blkferry("verify", image, location + image).status == 0, "\(location)")
        }
        let abstract = try run(
            "curl", "-sS", "--abstract-unix-socket", socket, "http://localhost/v1")
        #expect(abstract.output.contains("blkferry"), "\(abstract)")
        // Each socket has the rules of its address.
        for (address, status) in [(["http://\(addresses[0])/v1"], "403"), (unix, "200")] {
            let answer = try RunningProgram(
                ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: a.example"]
                    + address
            ).wait()
            #expect(answer.output == status, "\(address): \(answer)")
        }
        server.signal(SIGTERM)
        #expect(try server.wait().status == 0)
        #expect(FileManager.default.fileExists(atPath: socket), "it is the service manager's")
    }

    @Test func `sockets for another process are none of this one's`() throws {
        let server = try serve(
            passing(["tcp=127.0.0.1"], ["LISTEN_PID": "1"]), "--listen", "127.0.0.1:0")
        #expect(try addresses(server, count: 1).count == 1)
    }

    @Test(arguments: [
        ("tcp=127.0.0.1 udp=127.0.0.1", "descriptor 4 (name1) of LISTEN_FDS"),
        ("file=", "Socket operation on non-socket"), ("pair=", "not a TCP or unix socket that"),
        ("bound=127.0.0.1", "not a TCP or unix socket that listens"),
        ("unix-packets=@blkferry-test-packets", "not a TCP or unix socket that listens"),
        ("tcp=0.0.0.0", "other machines could connect"), ("tcp=::", "other machines could connect"),
    ])
    func `a socket that cannot serve, or needs protection, is refused in one line`(
        sockets: String, reason: String
    ) throws {
        let words = sockets.split(separator: " ").map(String.init)
        let result = try RunningProgram(passing(words) + [program, "serve", "--export", image])
            .wait()
        #expect(result.status == 64 && result.errors.contains(reason), "\(result)")
        let lines = result.errors.split(separator: "\n").filter { !$0.hasPrefix("  ") }
        #expect(lines.count == 1, "\(result)")
    }

    @Test func `impossible counts, closed descriptors and --listen beside sockets are refused`()
        throws
    {
        let cases: [(String, [String], String)] = [
            ("x", [], "LISTEN_FDS: x is not"), ("-1", [], "LISTEN_FDS: -1 is not"),
            ("2", [], "descriptor 4 of LISTEN_FDS: listen: Bad file descriptor"),
            ("9223372036854775807", [], "Bad file descriptor"),
            ("1", ["--listen", "127.0.0.1:0"], "leave out --listen"),
        ]
        for (count, options, reason) in cases {
            let command = passing(["tcp=127.0.0.1"], ["LISTEN_FDS": count])
            let result = try RunningProgram(
                command + [program, "serve", "--export", image] + options
            ).wait()
            #expect(result.status == 64 && result.errors.contains(reason), "\(count): \(result)")
        }
    }

    @Test func `other machines may use a passed socket with a token`() throws {
        let tokens = scratch.file("tokens")
        let token = try must(program, "token").trimmingCharacters(in: .newlines)
        try must("sh", "-c", "umask 077; echo 'me \(token)' > \(tokens)")
        let server = try serve(passing(["tcp=0.0.0.0"]), "--token-file", tokens)
        let port = try #require(try addresses(server, count: 1).first?.split(separator: ":").last)
        let url = "http://127.0.0.1:\(port)\(image)"
        #expect(try blkferry("verify", image, url).status == 5)
        #expect(
            try blkferry("verify", image, url, environment: ["BLKFERRY_TOKEN": token]).status == 0)
    }

    /// A service manager's end of NOTIFY_SOCKET, which prints each datagram on one line.
    private func manager(_ address: String) throws -> RunningProgram {
        let manager = try RunningProgram([
            "python3", "-c",
            """
            import socket, sys
            manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            manager.bind(sys.argv[1].replace('@', '\\0'))
            print('bound', flush=True)
            while True:
                print(manager.recv(4096).decode().replace('\\n', '|'), flush=True)
            """, address,
        ])
        #expect(try becomesTrue { try manager.outputSoFar() == "bound\n" })
        return manager
    }

    private func expect(
        _ manager: RunningProgram, _ text: String, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let isThere = try becomesTrue { try manager.outputSoFar().contains(text) }
        let output = try manager.outputSoFar()
        #expect(isThere, "\(text) in \(output)", sourceLocation: sourceLocation)
    }

    @Test(arguments: [true, false])
    func `the service manager learns of start, reload and end`(isAbstract: Bool) throws {
        let address = isAbstract ? "@\(scratch.path)" : scratch.file("notify")
        let manager = try manager(address)
        let exports = scratch.file("exports")
        try must("sh", "-c", "echo \(image) > \(exports)")
        let server = try serve(
            [], "--listen", "127.0.0.1:0", "--exports-file", exports,
            environment: ["NOTIFY_SOCKET": address])
        let place = try #require(try addresses(server, count: 1).first)
        try expect(manager, "\nREADY=1|STATUS=\(place): exports: 2\n")
        let start = Int(ProcessInfo.processInfo.systemUptime * 1e6)
        server.signal(SIGHUP)
        try expect(manager, "|STATUS=\(place): exports: 2\nRELOADING=1|MONOTONIC_USEC=")
        try expect(manager, "|STATUS=reading the files again\nREADY=1|STATUS=\(place): exports: 2")
        let time = try #require(
            try manager.outputSoFar().firstMatch(of: /MONOTONIC_USEC=(\d+)/).map { Int($0.1) })
        #expect(abs((time ?? 0) - start) < 60_000_000, "the monotonic clock, in microseconds")
        try must("sh", "-c", "echo a/b/c > \(exports)")
        server.signal(SIGHUP)
        try expect(manager, "\nREADY=1|STATUS=\(place): not reloaded: \(exports):1: ")
        server.signal(SIGTERM)
        try expect(manager, "\nSTOPPING=1|STATUS=")
        #expect(try server.wait().status == 0)
        #expect(try !manager.outputSoFar().contains("WATCHDOG"), "none was asked for")
    }

    @Test func `the watchdog is fed twice in its time`() throws {
        let address = scratch.file("notify")
        let manager = try manager(address)
        let server = try serve(
            [], "--listen", "127.0.0.1:0",
            environment: ["NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000"])
        func count() throws -> Int {
            try manager.outputSoFar().split(separator: "\n").filter { $0 == "WATCHDOG=1" }.count
        }
        let begin = ContinuousClock.now
        #expect(try becomesTrue { try count() >= 3 })
        let time = ContinuousClock.now - begin
        #expect((2.5...5.5).contains(time / .seconds(1)), "\(time) for three times one second")
        withExtendedLifetime(server) {}
    }

    @Test func `a watchdog of another process is not fed`() throws {
        let address = scratch.file("notify")
        let manager = try manager(address)
        let server = try serve(
            [], "--listen", "127.0.0.1:0",
            environment: ["NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"])
        try expect(manager, "READY=1")
        server.signal(SIGTERM)
        #expect(try server.wait().status == 0)
        #expect(try !manager.outputSoFar().contains("WATCHDOG"))
    }

    @Test(.enabled(if: isRoot, "LVM needs root"))
    func `programs that the server starts get none of the variables`() throws {
        let address = scratch.file("notify")
        let manager = try manager(address)
        let directory = scratch.file("programs")
        let variables = scratch.file("variables")
        try must("mkdir", directory)
        try must("sh", "-c", "printf '#!/bin/sh\\nenv > \(variables)\\n' > \(directory)/lvm")
        try must("chmod", "755", "\(directory)/lvm")
        let path = "\(directory):\(ProcessInfo.processInfo.environment["PATH"] ?? "")"
        let server = try serve(
            passing(["tcp=127.0.0.1"]), "--export", "vg-that-is-not",
            environment: [
                "PATH": path, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000",
                "WATCHDOG_PID": "1",
            ])
        try expect(manager, "READY=1")
        let inherited = try String(contentsOfFile: variables, encoding: .utf8)
        #expect(inherited.contains("\(directory):"))
        for name in ["LISTEN_", "NOTIFY_", "WATCHDOG_"] {
            #expect(!inherited.contains(name), "\(inherited)")
        }
        withExtendedLifetime(server) {}
    }

    @Test func `the command of the service has no other options than serve, and serves`() throws {
        let unit = try String(
            contentsOfFile: sourceTree + "/packaging/systemd/blkferry-serve.service",
            encoding: .utf8)
        let command = try #require(unit.firstMatch(of: /\nExecStart=(.*)\n/)?.1)
        let words = command.replacing("/etc/blkferry/", with: "\(scratch.path)/")
            .split(separator: " ").map(String.init)
        #expect(words.first == "/usr/bin/blkferry")
        let token = try must(program, "token").trimmingCharacters(in: .newlines)
        try must("sh", "-c", "umask 077; echo 'me \(token)' > \(scratch.file("tokens"))")
        try must("sh", "-c", "echo \(image) > \(scratch.file("exports"))")
        let server = try RunningProgram(
            passing(["tcp=127.0.0.1"]) + [program] + words.dropFirst())
        let url = "http://\(try #require(try addresses(server, count: 1).first))\(image)"
        let result = try blkferry("verify", image, url, environment: ["BLKFERRY_TOKEN": token])
        #expect(result.status == 0, "\(result)")
    }

    private var sourceTree: String {
        #filePath.split(separator: "/").dropLast(3).reduce("") { "\($0)/\($1)" }
    }
}
