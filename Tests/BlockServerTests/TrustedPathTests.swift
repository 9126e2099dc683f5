// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import Glibc
import TestSupport
import Testing
import WireProtocol

@testable import BlockServer

/// Symbolic links that other users have put into the paths of exports.
@Suite(
    .blocking, .timeLimit(.minutes(60)),
    .enabled(if: isRoot, "root alone can make files of another user"))
struct TrustedPathTests {
    private let scratch: ScratchDirectory
    private let secret: SeededImage
    private static let stranger: uid_t = 65_534

    init() throws {
        scratch = try ScratchDirectory()
        secret = try SeededImage(scratch, "secret", size: 1 << 20, seed: 7)
        try must("mkdir", scratch.file("bob"), scratch.file("root"))
        try must("chown", "\(Self.stranger)", scratch.file("bob"))
    }

    private func link(_ name: String, to target: String, owner: uid_t = stranger) throws {
        try must("ln", "-sfn", target, scratch.file(name))
        try must("chown", "-h", "\(owner)", scratch.file(name))
    }

    private func content(_ path: String, _ server: TestServer) throws -> HTTPAnswer {
        try server.ask("GET", Route.content(path).path)
    }

    @Test func `a link in a directory of an unprivileged user leads nowhere`() throws {
        try link("bob/disk.img", to: secret.path)
        let path = scratch.file("bob/disk.img")
        let server = try TestServer(path + ":rw")
        let answer = try content(path, server)
        #expect(answer.status == 403)
        #expect(answer.text.contains(path + " is a symbolic link"), "\(answer.text)")
        #expect(try server.open(path, .write, size: 1 << 20).status == 403)
        #expect(try server.ask("GET", Route.device(path).path).status == 403)
        for endpoint in ["info?", "hashes?method=sha1&", "blocks?offset=0&size=9&"] {
            let target = "/\(endpoint)filename=\(percentEncoded(path))"
            #expect(try server.ask("GET", target).status == 403, "\(endpoint)")
        }
        let list = try server.ask("GET", "/v1/devices").decoded(as: ExportList.self)
        #expect(list.devices.isEmpty)
        #expect(BlockServer.untrustedLink(in: path) == path)
    }

    @Test(arguments: ["bob/link/inner/disk.img", "bob/link/inner/"])
    func `a link further up in the path of an image or a directory leads nowhere`(export: String)
        throws
    {
        try must("mkdir", "-p", scratch.file("root/inner"))
        _ = try SeededImage(scratch, "root/inner/disk.img", size: 1 << 20)
        try link("bob/link", to: scratch.file("root"))
        let server = try TestServer(scratch.file(export))
        #expect(
            [403, 404].contains(try content(scratch.file("bob/link/inner/disk.img"), server).status)
        )
        let list = try server.ask("GET", "/v1/devices").decoded(as: ExportList.self)
        #expect(list.devices.isEmpty)
    }

    @Test func `a stranger's link in a directory of root leads nowhere`() throws {
        try must("chmod", "1777", scratch.file("root"))
        try link("root/disk.img", to: secret.path)
        let server = try TestServer(scratch.file("root/disk.img"))
        #expect(try content(scratch.file("root/disk.img"), server).status == 403)
    }

    @Test(arguments: [("0775", stranger, false), ("1775", stranger, true), ("0775", 0, true)])
    func `the members of a group that may write a directory of root may change its links`(
        mode: String, group: gid_t, isFollowed: Bool
    ) throws {
        try must("chmod", mode, scratch.file("root"))
        try must("chgrp", "\(group)", scratch.file("root"))
        try link("root/disk.img", to: secret.path, owner: 0)
        let server = try TestServer(scratch.file("root/disk.img"))
        let answer = try content(scratch.file("root/disk.img"), server)
        #expect(answer.status == (isFollowed ? 200 : 403))
    }

    @Test func `links of root are followed, and images of an unprivileged user are served`() throws
    {
        try link("root/disk.img", to: "../secret", owner: 0)
        let image = try SeededImage(scratch, "bob/own.img", size: 1 << 20, seed: 3)
        let server = try TestServer(
            scratch.file("root/disk.img"), image.path + ":rw", scratch.file("bob/"))
        #expect(try content(scratch.file("root/disk.img"), server).body == secret.bytes)
        #expect(try content(image.path, server).body == image.bytes)
        // It is replaced while the server has it open for a client that comes again.
        try must("mv", image.path, scratch.file("bob/old"))
        try link("bob/own.img", to: secret.path)
        #expect(try content(image.path, server).body != secret.bytes)
        try must("rm", image.path)
        let other = try SeededImage(scratch, "bob/own.img", size: 1 << 20, seed: 4)
        #expect(try content(image.path, server).body == other.bytes)
        let session = try server.session(image.path, .write, size: 1 << 20)
        let data = [UInt8](repeating: 9, count: 4096)
        #expect(try server.write(session.session, data, at: 0).status == 204)
        #expect(try server.commit(session.session).status == 204)
        #expect(try Array([UInt8](contentsOf: image.path).prefix(4096)) == data)
    }

    @Test func `a device is not served through a directory that belongs to another user`() throws {
        let device = try LoopDevice(size: 1 << 20)
        try must("cp", "-a", device.path, scratch.file("bob/node"))
        try must("cp", "-a", device.path, scratch.file("root/node"))
        let server = try TestServer(scratch.file("bob/node"), scratch.file("root/node"))
        #expect(try content(scratch.file("bob/node"), server).status == 404)
        #expect(try content(scratch.file("root/node"), server).status == 200)
    }

    @Test func `no image is created through a link of an unprivileged user`() throws {
        try link("bob/out", to: scratch.file("root"))
        try link("bob/new.img", to: scratch.file("root/new.img"))
        for name in ["bob/out/new.img", "bob/new.img"] {
            let server = try TestServer(scratch.file(name) + ":rw") { $0.createsImages = true }
            #expect(
                [403, 404, 409].contains(
                    try server.open(scratch.file(name), .write, size: 1 << 20).status))
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.file("root")).isEmpty)
        let server = try TestServer(scratch.file("bob/fine.img") + ":rw") {
            $0.createsImages = true
        }
        #expect(try server.open(scratch.file("bob/fine.img"), .write, size: 1 << 20).status == 201)
        #expect(FileManager.default.fileExists(atPath: scratch.file("bob/fine.img")))
    }
}
