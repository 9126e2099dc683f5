// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// blkferry as the client of a unix socket, and rules by the user at its other end.
@Suite(.blocking, .timeLimit(.minutes(60))) struct UnixClientTests {
    private let scratch: ScratchDirectory
    private let image: String
    private let socket: String
    private let size = 1 << 20

    init() throws {
        scratch = try ScratchDirectory()
        image = try scratch.filledFile("image", size: size, seed: 3)
        socket = scratch.file("socket")
        // Other users are to reach the socket.
        try must("chmod", "755", scratch.path)
    }

    private func serve(_ options: String...) throws -> RunningProgram {
        let server = try RunningProgram(
            [program, "serve", "--listen", "unix:\(socket)", "--export", image + ":rw"] + options)
        try server.waitUntil(says: "listening")
        return server
    }

    private func content(_ path: String) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: path))
    }

    /// Status of a request by curl as another user.
    private func status(_ user: Int, _ method: String = "GET", _ headers: String...) throws
        -> String
    {
        try RunningProgram(
            ["setpriv", "--reuid", "\(user)", "--regid", "\(user)", "--clear-groups", "curl"]
                + ["-sS", "--unix-socket", socket, "-w", "%{http_code}", "-o", "/dev/null"]
                + ["-X", method] + headers.flatMap { ["-H", $0] }
                + ["http://localhost/v1/devices"]
        ).wait().output
    }

    @Test func `all commands work over a unix socket, with both forms of its location`() throws {
        let server = try serve()
        defer { server.signal(SIGTERM) }
        let encoded = socket.replacing("/", with: "%2F")
        let copy = scratch.file("copy")
        for (name, url) in [
            ("unix:\(socket)", "unix:\(socket):\(image)"),
            ("http+unix://\(encoded)", "http+unix://\(encoded)\(image)"),
        ] {
            let list = try blkferry("list", name)
            #expect(list.status == 0 && list.output.contains(image), "\(list)")
            let pull = try RunningProgram(
                [program, url, copy],
                environment: [
                    "http_proxy": "http://127.0.0.1:1", "all_proxy": "http://127.0.0.1:1",
                ]
            ).wait()
            #expect(pull.status == 0, "\(pull)")
            #expect(try content(copy) == content(image))
            try fill(copy, seed: 9, size: size / 2)
            let push = try blkferry(copy, url)
            #expect(push.status == 0, "\(push)")
            #expect(try blkferry("verify", url, copy).status == 0)
        }
        #expect(try server.errorsSoFar().contains("peer=uid:\(getuid())"))
    }

    @Test func `a socket that is not there, or nobody listens on, ends with 4 and its name`() throws
    {
        for text in [socket, image] {
            let result = try blkferry("list", "unix:\(text)")
            #expect(
                result.status == 4 && result.errors.contains("unix:\(text): list: "), "\(result)")
            #expect(result.errors.split(separator: "\n").count <= 2)
        }
        #expect(try blkferry("list", "unix:").status == 64)
    }

    @Test(.enabled(if: getuid() == 0)) func `a user's line applies to that user's processes alone`()
        throws
    {
        let tokens = scratch.file("tokens")
        let token = try must(program, "token").trimmingCharacters(in: .newlines)
        func write(_ text: String) throws {
            try must("sh", "-c", "umask 077; printf '\(text)' > \(tokens)")
        }
        try write("me \(token)\\nadmin user:root\\nguest user:4242 ro /nowhere\\n")
        let server = try serve("--token-file", tokens)
        defer { server.signal(SIGTERM) }
        #expect(try status(4242) == "200")
        #expect(try status(4243) == "401")
        #expect(try status(4243, "GET", "Authorization: Bearer \(token)") == "200")
        #expect(try status(4243, "GET", "Authorization: Bearer x") == "401")
        // The guess of one user is no other's: each waits for itself.
        #expect(try status(4244, "GET", "Authorization: Bearer \(token)") == "200")
        let list = try blkferry("list", "unix:\(socket)")
        #expect(list.status == 0 && list.output.contains(image), "\(list)")
        try must("cp", image, scratch.file("copy"))
        let push = try blkferry(scratch.file("copy"), "unix:\(socket):\(image)")
        #expect(push.status == 0, "\(push)")
        let log = try server.errorsSoFar()
        #expect(log.contains("client=admin") && log.contains("uid:4243"), "\(log)")

        try write("me \(token)\\nguest user:4242\\n")
        server.signal(SIGHUP)
        try server.waitUntil(says: " reloaded")
        #expect(try blkferry("list", "unix:\(socket)").status == 5)
    }

    private static let silentConnections = """
        import os, resource, socket, sys, time
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        # Here, since that user may have no right to run this interpreter.
        os.setgroups([])
        os.setgid(4242)
        os.setuid(4242)
        held = []
        for _ in range(1100):
            held.append(socket.socket(socket.AF_UNIX))
            held[-1].connect(sys.argv[1])
        print("connected", flush=True)
        time.sleep(600)
        """

    @Test(.enabled(if: getuid() == 0), arguments: ["", "ulimit -n 256 && "])
    func `silent connections of one user keep no other user out`(limit: String) throws {
        let tokens = scratch.file("tokens")
        try must("sh", "-c", "umask 077; echo 'admin user:root' > \(tokens)")
        let server = try RunningProgram([
            "bash", "-c", "\(limit)exec \"$0\" \"$@\"", program, "serve", "--listen",
            "unix:\(socket)", "--export", image, "--token-file", tokens,
        ])
        defer { server.signal(SIGTERM) }
        try server.waitUntil(says: "listening")
        let silent = try RunningProgram([
            "python3", "-c", Self.silentConnections, socket,
        ])
        while silent.isRunning, try !silent.outputSoFar().contains("connected") { usleep(5_000) }
        let errors = try silent.errorsSoFar()
        #expect(silent.isRunning, "\(errors)")
        let list = try blkferry("list", "unix:\(socket)")
        #expect(list.status == 0 && list.output.contains(image), "\(list)")
    }

    @Test func `a socket without rules is its owner's, and a socket with rules everybody's`() throws
    {
        func mode() throws -> String {
            try must("stat", "-c", "%a", socket).trimmingCharacters(in: .newlines)
        }
        let first = try serve()
        #expect(try mode() == "600")
        first.signal(SIGTERM)
        _ = try first.wait()
        let second = try serve("--one-time-token")
        #expect(try mode() == "666")
        second.signal(SIGTERM)
        _ = try second.wait()
    }

    @Test(arguments: ["socket", "with space"])
    func `a one-time token is printed with the location of the socket`(name: String) throws {
        let path = scratch.file(name)
        let server = try RunningProgram([
            "sh", "-c", "cd \(scratch.path) && exec $0 \"$@\"", program, "serve", "--listen",
            "unix:\(name)", "--export", image, "--one-time-token",
        ])
        defer { server.signal(SIGTERM) }
        try server.waitUntil(says: "listening")
        let line = try server.outputSoFar().split(separator: "\n").last.map(String.init) ?? ""
        #expect(
            line.hasSuffix(
                name == "socket"
                    ? " blkferry list unix:\(path)"
                    : " blkferry list http+unix://"
                        + path.replacing("/", with: "%2F").replacing(" ", with: "%20")), "\(line)")
        let list = try must("sh", "-c", line.replacing("blkferry list", with: "\(program) list"))
        #expect(list.contains(image))
    }

    @Test func `an unknown user is wrong usage`() throws {
        let tokens = scratch.file("tokens")
        try must("sh", "-c", "umask 077; echo 'a user:no-such-user-here' > \(tokens)")
        let result = try blkferry(
            "serve", "--listen", "unix:\(socket)", "--export", image, "--token-file", tokens)
        #expect(result.status == 64 && result.errors.contains("tokens:1: user:no-such-user-here"))
    }
}
