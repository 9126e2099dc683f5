// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// `serve --user`.
@Suite(
    .enabled(if: isRoot, "only root can become another user"), .blocking, .timeLimit(.minutes(30)))
struct ServeUserTests {
    private let scratch: ScratchDirectory
    private let image: String
    private let size = 4 << 20

    init() throws {
        scratch = try ScratchDirectory()
        try must("chmod", "755", scratch.path)
        image = try scratch.filledFile("image", size: size, seed: 5)
        try must("chown", "nobody", image)
        try must("chmod", "600", image)
    }

    private func status(_ server: ServeProcess) throws -> [String] {
        try String(
            contentsOfFile: "/proc/\(server.process.processID)/status", encoding: .utf8
        ).split(separator: "\n").map { $0.split(separator: "\t").joined(separator: " ") }
    }

    @Test func `the server runs as --user in all respects, with a port and files of root's`() throws
    {
        let tokens = scratch.file("tokens")
        let token = try must(program, "token").trimmingCharacters(in: .newlines)
        try must("sh", "-c", "umask 077; echo 'me \(token)' > \(tokens)")
        let images = scratch.file("images")
        try must("install", "-d", "-o", "nobody", images)
        // No other test has this address.
        let server = try ServeProcess(
            image + ":rw", "\(images)/:rw", on: "127.83.\(getpid() >> 8 & 255).\(getpid() & 255)",
            options: ["--user", "nobody", "--token-file", tokens, "-v"])
        let status = try status(server)
        let user = try must("id", "-u", "nobody").trimmingCharacters(in: .newlines)
        let group = try must("id", "-g", "nobody").trimmingCharacters(in: .newlines)
        for line in [
            "Uid: \(user) \(user) \(user) \(user)", "Gid: \(group) \(group) \(group) \(group)",
            "Groups: \(group)", "CapPrm: 0000000000000000", "CapBnd: 0000000000000000",
            "CapAmb: 0000000000000000",
        ] {
            #expect(status.contains { $0.trimmingCharacters(in: .whitespaces) == line }, "\(line)")
        }
        #expect(try server.log().contains("user=nobody"))
        let copy = try scratch.sparseFile("copy", size: size)
        let environment = ["BLKFERRY_TOKEN": token]
        for arguments in [
            [server.url(image), copy], ["--verify", copy, server.url("\(images)/new")],
            ["verify", copy, server.url(image)],
        ] {
            try fill(copy, seed: 6, size: 4096)
            if arguments[0] == "verify" { try must("cp", image, copy) }
            let result = try RunningProgram([program] + arguments, environment: environment).wait()
            #expect(result.status == 0, "\(result)")
        }
        #expect(
            try must("stat", "-c", "%U", "\(images)/new").trimmingCharacters(in: .newlines)
                == "nobody")
        // The token file is root's alone.
        server.process.signal(SIGHUP)
        while server.process.isRunning, try !server.log().contains("not reloaded: ") {
            usleep(5_000)
        }
        #expect(try server.log().contains("not reloaded: \(tokens): open: Permission denied"))
        let list = try RunningProgram(
            [program, "list", server.url("/")], environment: environment
        ).wait()
        #expect(list.status == 0, "\(list)")
    }

    @Test func `files that outlive the server are kept in a directory of its user`() throws {
        let directory = "/run/blkferry-\(try must("id", "-u", "nobody").filter(\.isNumber))"
        let server = try ServeProcess(image + ":rw", options: ["--user", "nobody"])
        #expect(
            try must("stat", "-c", "%U %a", directory).trimmingCharacters(in: .newlines)
                == "nobody 700")
        let copy = scratch.file("copy")
        try must("cp", image, copy)
        #expect(try blkferry(copy, server.url(image)).status == 0)
        #expect(FileManager.default.fileExists(atPath: "\(directory)/writes.json"))
    }

    @Test func `devices of a group of the server's user are read and written`() throws {
        let device = try LoopDevice(size: size)
        let mode = try must("stat", "-c", "%a", device.path).trimmingCharacters(in: .newlines)
        try must("chgrp", "4711", device.path)
        try must("chmod", "660", device.path)
        defer {
            _ = try? must("chgrp", "disk", device.path)
            _ = try? must("chmod", mode, device.path)
        }
        let groups = scratch.file("group")
        try must("sh", "-c", "{ cat /etc/group; echo extra:x:4711:nobody; } > \(groups)")
        try must("chmod", "644", groups)
        let server = try ServeProcess(
            "\(device.path):rw", options: ["--user", "nobody"],
            prefix: [
                "unshare", "-m", "--propagation", "private", "sh", "-c",
                "mount --bind \(groups) /etc/group && exec \"$@\"", "sh",
            ])
        #expect(try status(server).contains { $0.hasPrefix("Groups: ") && $0.contains("4711") })
        let push = try blkferry("--verify", image, server.url(device.path))
        #expect(push.status == 0, "\(push)")
        #expect(try areEqual(image, device.path))
    }

    @Test func `a unix socket belongs to the server's user, wherever it is`() throws {
        let socket = scratch.file("socket")
        let server = try RunningProgram(
            [program, "serve", "--listen", "unix:\(socket)", "--export", image, "--user", "nobody"])
        defer { server.signal(SIGTERM) }
        try server.waitUntil(says: "listening")
        #expect(
            try must("stat", "-c", "%U %a", socket).trimmingCharacters(in: .newlines)
                == "nobody 600")
        #expect(try blkferry("verify", image, "unix:\(socket):\(image)").status == 0)
    }

    @Test func `an impossible user or export is wrong usage, with the reason`() throws {
        let mine = try scratch.sparseFile("mine", size: size)
        try must("chmod", "600", mine)
        let device = try LoopDevice(size: size)
        for (user, export, reason) in [
            ("no-such-user-here", image, "there is no such user"), ("4294967000", image, "no such"),
            ("root", image, "that is root"), ("nobody", mine, "\(mine): that user may not use it"),
            ("nobody", "\(device.path)", "\(device.path): that user may not use it"),
            ("nobody", "\(scratch.path)/:rw", "\(scratch.path)/: that user may not use it"),
            ("nobody", "UUID=x", "that user may not use it"),
            ("nobody", "vg1:rw", "vg1: only root can write logical volumes"),
            ("nobody", "vg1/one:rw,create", "vg1/one: only root can make logical volumes"),
            ("nobody", "LVUUID=x:rw", "LVUUID=x: only root can write logical volumes"),
        ] {
            let result = try blkferry(
                "serve", "--listen", "127.0.0.1:0", "--export", export, "--user", user)
            #expect(
                result.status == 64
                    && result.errors.hasPrefix("blkferry: --user \(user): ")
                    && result.errors.contains(reason), "\(user) \(export): \(result)")
            #expect(result.errors.split(separator: "\n").count <= 2, "\(result)")
        }
        let stdio = try blkferry("serve", "--stdio", "--export", image, "--user", "nobody")
        #expect(stdio.status == 64 && stdio.errors.contains("--user does not go with --stdio"))
        try must("cp", program, scratch.file("blkferry"))
        try must("chmod", "755", scratch.file("blkferry"))
        let others = try run(
            "setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups",
            scratch.file("blkferry"), "serve", "--export", image, "--user", "nobody")
        #expect(others.status == 64 && others.errors.contains("only root can"), "\(others)")
    }
}
