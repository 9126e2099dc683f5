// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import LinuxIO
import TestSupport
import Testing

/// Runs whose server or line is away for a while, or for good.
@Suite(.blocking, .timeLimit(.minutes(60))) struct RetryForTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let image: String
    private let size = 24 << 20

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.filledFile("source", size: size, seed: 1)
        image = try scratch.sparseFile("image", size: size)
    }

    /// Starts a run that takes about six seconds, and waits until its target has some of the data.
    private func start(_ arguments: [String], target: String? = nil) throws -> RunningProgram {
        let sync = try RunningProgram(
            [program, "--json", "-c", "2", "--bwlimit", "4M"] + arguments)
        // A connection that hangs may have any part of it.
        while sync.isRunning, try FileStatus(path: target ?? image).allocated == 0 {
            usleep(2_000)
        }
        return sync
    }

    /// Waits for the end, and returns the seconds until then as well.
    private func end(of sync: RunningProgram) throws -> (ProgramResult, seconds: Double) {
        let start = ContinuousClock.now
        let result = try sync.wait()
        return (result, (ContinuousClock.now - start) / .seconds(1))
    }

    @Test(arguments: [[], ["-q"]])
    func `a server that is gone ends the run after the retry time, and one line says so before`(
        flags: [String]
    ) throws {
        let server = try ServeProcess("\(image):rw")
        let sync = try start(flags + ["--retry-for", "12s", source, server.url(image)])
        try server.kill()
        let (result, seconds) = try end(of: sync)
        #expect(result.status == 4, "\(result)")
        #expect(seconds >= 11 && seconds < 28, "\(seconds)")
        var lines = result.errors.split(separator: "\n")[...]
        if flags.isEmpty {
            let line = lines.popFirst() ?? ""
            #expect(line.hasPrefix("blkferry: waiting for http://127.0.0.1:\(server.port) since "))
            #expect(line.hasSuffix(", for up to 12 s: connection refused"), "\(line)")
        }
        #expect(lines.count == 1 && lines.first?.hasSuffix("connection refused") == true)
    }

    @Test func `with --retry-for 0 the first failure ends the run`() throws {
        let server = try ServeProcess("\(image):rw")
        let sync = try start(["--retry-for", "0", source, server.url(image)])
        try server.kill()
        let (result, seconds) = try end(of: sync)
        #expect(result.status == 4, "\(result)")
        #expect(seconds < 25, "\(seconds)")
    }

    @Test func `a run with --retry-for survives a server that is away for longer than usual`()
        throws
    {
        let server = try ServeProcess("\(image):rw")
        let sync = try start(["--retry-for", "2m", source, server.url(image)])
        try server.kill()
        usleep(35_000_000)
        try server.startAgain()
        let result = try sync.wait()
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, image))
        #expect(result.errors.contains(", for up to 2 min: connection refused\n"), "\(result)")
        #expect(
            result.errors.contains("http://127.0.0.1:\(server.port) answers again, after "),
            "\(result)")
    }

    @Test(arguments: [true, false])
    func `a signal during the wait ends the run at once`(isPush: Bool) throws {
        try must("cp", source, scratch.file("other"))
        let target = isPush ? image : try scratch.sparseFile("copy", size: size)
        let server = try ServeProcess("\(scratch.path)/:rw")
        let (from, to) =
            isPush
            ? (source, server.url(image)) : (server.url(scratch.file("other")), target)
        let sync = try start(["--retry-for", "10m", from, to], target: target)
        try server.kill()
        try sync.waitUntil(says: "waiting for http://")
        sync.signal(SIGINT)
        let (result, seconds) = try end(of: sync)
        // The flush of a target that is out of reach fails, which weighs more than the signal.
        #expect(result.status == (isPush ? 4 : 130), "\(result)")
        #expect(result.errors.contains("interrupted, incomplete"), "\(result)")
        #expect(seconds < 25, "\(seconds)")
    }

    @Test func `an ssh that hangs when it connects again is ended after the retry time`() throws {
        let first = scratch.file("first")
        let ssh = scratch.file("connect")
        // The last argument is the command for the other host. The second connection of the run
        // hangs as well, and has no limit of its own.
        try """
        for command; do :; done
        if mkdir \(first) 2>/dev/null; then exec sh -c "$command"; fi
        exec sleep 1000
        """.write(toFile: ssh, atomically: false, encoding: .utf8)
        let sync = try start(
            [
                "--retry-for", "3", "--ssh-command", "sh \(ssh)", "--remote-command",
                program, source, "ssh://somewhere\(image)",
            ])
        for part in SSHPart.all(with: image) where part.isServer { kill(part.process, SIGKILL) }
        let (result, seconds) = try end(of: sync)
        #expect(result.status == 4, "\(result)")
        #expect(result.errors.contains("no connection within "), "\(result)")
        #expect(seconds < 60, "\(seconds)")
        #expect(SSHPart.waitForNone(with: image).isEmpty)
    }

    @Test(.enabled(if: NetworkNamespaces.isAvailable, "network namespaces need root and ip(8)"))
    func `a silent name server delays nothing beyond the timeout of a connection`() throws {
        let names = scratch.file("resolv.conf")
        try "nameserver 192.0.2.1\noptions timeout:20 attempts:2\n".write(
            toFile: names, atomically: false, encoding: .utf8)
        // The other end of the cable takes every packet.
        let script = """
            mount --bind \(names) /etc/resolv.conf
            ip link add veth0 type veth peer name veth1
            ip address add 192.0.2.2/24 dev veth0
            ip link set veth0 up
            ip link set veth1 up
            ip neighbour add 192.0.2.1 lladdr 02:00:00:00:00:01 dev veth0
            exec "$0" list http://host.example:8080/
            """
        let start = ContinuousClock.now
        let result = try run("unshare", "-n", "-m", "sh", "-ec", script, program)
        #expect(result.status == 4, "\(result)")
        #expect(result.errors.contains("no connection within 10 s"), "\(result)")
        #expect(ContinuousClock.now - start < .seconds(40))
    }

    @Test func `a negative or impossible duration is wrong usage`() throws {
        for text in ["-1", "x", "1e3", ""] {
            let result = try blkferry("--retry-for", text, source, image)
            #expect(result.status == 64, "\(result)")
        }
        #expect(try blkferry("verify", "--retry-for", "1h", source, source).status == 0)
    }
}

/// Lines on which packets vanish, between hosts of their own.
@Suite(
    .enabled(if: NetworkNamespaces.isAvailable, "network namespaces need root and ip(8)"),
    .blocking, .timeLimit(.minutes(60)))
struct VanishingPacketTests {
    private let scratch: ScratchDirectory
    private let pair: NetworkNamespaces
    private let server: ServeProcess
    private let source: String
    private let image: String

    init() throws {
        scratch = try ScratchDirectory()
        pair = try NetworkNamespaces()
        source = try scratch.filledFile("source", size: 24 << 20, seed: 1)
        image = try scratch.sparseFile("image", size: 24 << 20)
        server = try ServeProcess(
            "\(image):rw", on: pair.first.ipv4, options: ["--insecure"],
            prefix: pair.run(in: pair.first))
    }

    /// Starts a push on the second host, and waits until its target has some of the data.
    private func start(_ flags: String...) throws -> RunningProgram {
        let sync = try RunningProgram(
            pair.run(in: pair.second) + [program, "-v", "-c", "2", "--bwlimit", "4M"] + flags
                + [source, server.url(image)])
        let wanted = try [UInt8](contentsOf: source, count: 4096)
        while sync.isRunning, try [UInt8](contentsOf: image, count: 4096) != wanted {
            usleep(2_000)
        }
        return sync
    }

    private func ip(_ host: NetworkNamespaces.Host, _ arguments: String...) throws {
        try must(["ip", "-netns", host.name] + arguments)
    }

    @Test func `a client whose address changes continues over new connections`() throws {
        let sync = try start()
        // An address of another network, as after a change from one line to another.
        let (there, here, device) = (pair.first, pair.second, pair.second.interface)
        try ip(here, "address", "add", "10.99.0.2/32", "dev", device)
        try ip(here, "address", "delete", "\(here.ipv4)/30", "dev", device)
        try ip(here, "route", "add", "\(there.ipv4)/32", "dev", device, "src", "10.99.0.2")
        try ip(there, "route", "add", "10.99.0.2/32", "dev", there.interface)
        let start = ContinuousClock.now
        let result = try sync.wait()
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, image))
        #expect(result.errors.contains("has acknowledged nothing for 30 s; trying again"))
        #expect(ContinuousClock.now - start < .seconds(120))
    }

    @Test func `a line that swallows every packet ends the run soon after the retry time`() throws {
        let sync = try start("--retry-for", "5s")
        try ip(pair.first, "route", "add", "blackhole", "\(pair.second.ipv4)/32")
        let start = ContinuousClock.now
        let result = try sync.wait()
        #expect(result.status == 4, "\(result)")
        #expect(result.errors.contains("has acknowledged nothing for 30 s"), "\(result)")
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        // Half a minute until the client notices, and a second for the last attempt.
        #expect(seconds > 30 && seconds < 58, "\(seconds)")
    }
}
