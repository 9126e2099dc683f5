// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import TestSupport
import Testing
import WireProtocol

/// What a server offers, by which names, and that nothing else can be reached.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPExportTests {
    private let scratch: ScratchDirectory

    init() throws { scratch = try ScratchDirectory() }

    private func devices(_ server: TestServer) throws -> ExportList {
        try server.ask("GET", "/v1/devices").decoded(as: ExportList.self)
    }

    private func status(_ server: TestServer, _ name: String) throws -> Int {
        try server.ask("GET", Route.content(name).path).status
    }

    @Test func `an image is found by its path and its id until it is removed`() throws {
        let path = scratch.file("a.img")
        let server = try TestServer(path)
        #expect(try devices(server).devices.isEmpty)
        #expect(try server.ask("GET", Route.device(path).path).problem == .notFound)
        let image = try SeededImage(scratch, size: 8192)
        let record = try #require(try devices(server).devices.first)
        #expect(record.path == path && record.size == 8192 && record.access == .readOnly)
        for name in [path, record.id] {
            #expect(try server.ask("GET", Route.content(name).path).body == image.bytes)
            let answer = try server.ask("GET", Route.device(name).path)
            #expect(try answer.decoded(as: ExportRecord.self).id == record.id)
        }
        try FileManager.default.removeItem(atPath: path)
        for name in [path, record.id] {
            #expect(try status(server, name) == 404)
            #expect(try server.open(name, .read).problem == .notFound)
        }
        #expect(try devices(server).devices.isEmpty)
    }

    @Test func `images of an exported directory come and go`() throws {
        try FileManager.default.createDirectory(
            atPath: scratch.file("d/sub"), withIntermediateDirectories: true)
        let server = try TestServer(scratch.file("d/"))
        #expect(try devices(server).devices.isEmpty)
        #expect(try devices(server).directories.map(\.path) == [scratch.file("d/")])
        let first = try SeededImage(scratch, "d/a", size: 4096)
        let second = try SeededImage(scratch, "d/sub/b", size: 4096, seed: 2)
        #expect(try devices(server).devices.map(\.path) == [first.path])
        #expect(try server.ask("GET", Route.content(first.path).path).body == first.bytes)
        #expect(try server.ask("GET", Route.content(second.path).path).body == second.bytes)
        // Another file under the name: what was there before is not served any more.
        let third = try SeededImage(scratch, "new", size: 4096, seed: 3)
        rename(third.path, first.path)
        #expect(try server.ask("GET", Route.content(first.path).path).body == third.bytes)
        try FileManager.default.removeItem(atPath: first.path)
        #expect(try status(server, first.path) == 404)
        #expect(try status(server, scratch.file("d")) == 404)
        #expect(try status(server, scratch.file("d/")) == 404)
        #expect(try status(server, scratch.file("d/sub")) == 404)
    }

    @Test func `a client creates an image in a directory that is exported to write`() throws {
        for name in ["ro", "rw"] {
            try FileManager.default.createDirectory(
                atPath: scratch.file(name), withIntermediateDirectories: false)
        }
        let server = try TestServer(scratch.file("ro/"), scratch.file("rw/:rw"))
        #expect(try server.open(scratch.file("ro/x"), .write, size: 8192).problem == .access)
        #expect(try server.open(scratch.file("rw/a/x"), .write, size: 8192).problem == .notFound)
        let path = scratch.file("rw/x")
        let session = try server.session(path, .write, size: 8192)
        #expect(session.created == true && session.size == 8192)
        #expect(
            try server.write(session.session, [UInt8](repeating: 7, count: 4096), at: 4096)
                .status == 204)
        #expect(try server.commit(session.session).status == 204)
        #expect(
            try [UInt8](contentsOf: path)
                == [UInt8](repeating: 0, count: 4096) + [UInt8](repeating: 7, count: 4096))
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.file("ro")).isEmpty)
    }

    @Test func `no file outside an exported directory can be reached or created`() throws {
        try FileManager.default.createDirectory(
            atPath: scratch.file("d/sub"), withIntermediateDirectories: true)
        let secret = try SeededImage(scratch, "secret", size: 4096)
        let inside = try SeededImage(scratch, "d/inside", size: 4096)
        let links = [
            "d/file-link": "../secret", "d/directory-link": "..", "d/absolute": secret.path,
            "d/loop": "loop", "d/dangling": "../made", "d/sub/up": "../..", "d/etc": "/etc",
            "d/self": "inside",
        ]
        for (link, target) in links {
            try FileManager.default.createSymbolicLink(
                atPath: scratch.file(link), withDestinationPath: target)
        }
        mkfifo(scratch.file("d/fifo"), 0o600)
        if isRoot { try must("mknod", scratch.file("d/null"), "c", "1", "3") }
        if isRoot { try must("mknod", scratch.file("d/disk"), "b", "7", "0") }
        let server = try TestServer(scratch.file("d/:rw"))
        let before = try must("find", scratch.path, "-ls")
        let names =
            links.keys.map { scratch.file($0) }
            + [
                "../secret", "sub/../../secret", "directory-link/secret", "sub/up/secret",
                "etc/passwd", "fifo", "null", "disk", ".", "..", "./", "sub/.", "sub/..",
                "//etc/passwd", "/etc/passwd", "sub/../../made", "missing/../../made",
                "missing/../made", "directory-link/made", "sub/../\u{301}made", "inside/x",
                "dangling", String(repeating: "n", count: 256), String(repeating: "n", count: 5000),
                String(repeating: "sub/../", count: 500) + "inside", "", "sub/",
            ].map { scratch.file("d/" + $0) }
            + [
                secret.path, scratch.file("d"), "/etc/passwd", "/dev/null", "/proc/self/mem",
                "/proc/self/fd/0", "NAME=x", "UUID=", "=", "x",
            ]
        for name in names {
            for answer in [
                try server.ask("GET", Route.device(name).path),
                try server.ask("GET", Route.content(name).path),
                try server.open(name, .read),
                try server.open(name, .write, size: 4096),
            ] {
                #expect(answer.status == 404 && answer.problem == .notFound, "\(name)")
            }
        }
        #expect(try must("find", scratch.path, "-ls") == before)
        #expect(try status(server, inside.path) == 200)
    }

    @Test(arguments: [
        "/v1/devices/%00/content", "/v1/devices/%2Fetc%2Fpasswd%00.img/content",
        "/v1/devices/%2e%2e/content", "/v1/devices/../../etc/passwd", "/v1/devices/%zz/content",
        "/v1/devices/%2/content", "/v1/devices/%ff%fe/content", "/v1/devices//content",
        "//v1", "/v1//devices", "/v2", "/v1/devices/a/b/c", "/v1/sessions", "/v1/sessions/a/b",
        "/v1%2Fdevices", "/V1", "/v1/devices/\(String(repeating: "a", count: 8190))",
    ])
    func `a path that the API does not have is answered with 404`(path: String) throws {
        let server = try TestServer("/nowhere")
        #expect(try server.ask("GET", path).problem == .notFound)
    }

    @Test(.enabled(if: isRoot, "loop devices need root"), .noSilentDisk)
    func `devices are found by their tags, and two with the same tag by their paths`() throws {
        let uuid = UUID().uuidString.lowercased()
        let label = "t" + uuid.prefix(8)
        let server = try TestServer("UUID=\(uuid)", "LABEL=\(label):rw") { $0.exportsAll = true }
        #expect(try server.ask("GET", Route.device("UUID=\(uuid)").path).problem == .notFound)
        let first = try LoopDevice(size: 16 << 20)
        try must("mkfs.ext4", "-q", "-U", uuid, "-L", label, first.path)
        let record = try server.ask("GET", Route.device("UUID=\(uuid)").path)
            .decoded(as: ExportRecord.self)
        #expect(record.path == first.path && record.tags.contains("LABEL=\(label)"))
        // The export that allows more counts.
        #expect(record.access == .readWrite)
        #expect(try status(server, "LABEL=\(label)") == 200)
        #expect(try status(server, first.path) == 200)

        let second = try LoopDevice(size: 16 << 20)
        try must("dd", "if=\(first.path)", "of=\(second.path)", "bs=1M", "conv=fsync")
        let answer = try server.ask("GET", Route.device("UUID=\(uuid)").path)
        #expect(answer.status == 409 && answer.problem == .ambiguous)
        let problem = try answer.decoded(as: Problem.self)
        #expect(Set(problem.candidates ?? []) == [first.path, second.path])
        #expect(try status(server, second.path) == 200)
        #expect(try server.open("LABEL=\(label)", .write, size: 16 << 20).problem == .ambiguous)
    }

    @Test(.enabled(if: isRoot, "loop devices need root"), .noSilentDisk)
    func `of two devices with the tag of an export neither is exported, by whatever name`() throws {
        let uuid = UUID().uuidString.lowercased()
        let first = try LoopDevice(size: 16 << 20)
        try must("mkfs.ext4", "-q", "-U", uuid, first.path)
        let server = try TestServer("UUID=\(uuid):rw")
        #expect(try devices(server).devices.map(\.path) == [first.path])
        let second = try LoopDevice(size: 16 << 20)
        try must("dd", "if=\(first.path)", "of=\(second.path)", "bs=1M", "conv=fsync")
        for name in [first.path, second.path, "UUID=\(uuid)"] {
            let answer = try server.open(name, .write, size: 16 << 20)
            #expect(answer.problem == .ambiguous)
            let problem = try answer.decoded(as: Problem.self)
            #expect(Set(problem.candidates ?? []) == [first.path, second.path])
        }
        #expect(try devices(server).devices.isEmpty)
        // One that is exported by another name as well can be had, with what that allows.
        let other = try TestServer("UUID=\(uuid):rw", second.path)
        #expect(try status(other, second.path) == 200)
        #expect(try other.open(second.path, .write, size: 16 << 20).problem != .ambiguous)
        #expect(try other.open(first.path, .write, size: 16 << 20).problem == .ambiguous)
    }

    @Test(.enabled(if: isRoot, "loop devices need root"))
    func `the list shows no path outside the exports`() throws {
        let mount = try LoopMount(size: 32 << 20)
        let server = try TestServer(mount.loop.path)
        let text =
            try server.ask("GET", "/v1/devices").text
            + server.ask("GET", Route.device(mount.loop.path).path).text
        #expect(text.contains("mounted"))
        #expect(!text.contains(mount.path) && !text.contains(mount.loop.backingFile))
    }

    @Test(.enabled(if: isRoot, "loop devices need root"))
    func `a device that went away is not found any more`() throws {
        // Another test may get the number of the loop device before the server is asked.
        let isGone = try holdsUndisturbed {
            var loop: LoopDevice? = try LoopDevice(size: 1 << 20)
            let path = try #require(loop?.path)
            let server = try TestServer(path)
            let session = try server.session(path, .read).session
            #expect(try server.ask("DELETE", Route.session(session).path).status == 204)
            loop = nil
            guard try becomesTrue(within: 5, { try devices(server).devices.isEmpty }) else {
                return false
            }
            let all = [
                try server.ask("GET", Route.content(path).path), try server.open(path, .read),
                try server.ask("GET", Route.device(path).path),
            ]
            return all.map(\.problem) == [.notFound, .notFound, .notFound]
        }
        #expect(isGone)
    }

    @Test func `an export's name in another Unicode form is not that export`() throws {
        let exported = try SeededImage(scratch, "caf\u{e9}", size: 4096)
        let other = try SeededImage(scratch, "cafe\u{301}", size: 4096, seed: 2)
        let server = try TestServer(exported.path)
        // The other one first, because the server caches the last content that was read.
        #expect(try server.ask("GET", Route.content(other.path).path).body != other.bytes)
        #expect(try server.ask("GET", Route.content(exported.path).path).body == exported.bytes)
    }
}
