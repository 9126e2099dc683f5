// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import Glibc
import TestSupport
import Testing
import WireProtocol

/// New images in directories that the server's user may use only in part.
@Suite(
    .enabled(if: isRoot, "only root can become another user"), .blocking, .timeLimit(.minutes(30)))
struct HTTPServerUserTests {
    private static let limited = "limited-token-of-enough-characters"
    private static let unlimited = "unlimited-token-of-enough-characters"

    private let scratch: ScratchDirectory
    private let server: ServeProcess

    init() throws {
        scratch = try ScratchDirectory()
        try must("chmod", "755", scratch.path)
        try must("install", "-d", "-o", "nobody", scratch.file("d"))
        let tokens = scratch.file("tokens")
        let lines = "a \(Self.limited) max-size=4M\nb \(Self.unlimited)"
        try must("sh", "-c", "umask 077; echo '\(lines)' > \(tokens)")
        server = try ServeProcess(
            scratch.file("d/") + ":rw", options: ["--user", "nobody", "--token-file", tokens])
    }

    private func directory(_ name: String, mode: String) throws {
        try must("install", "-d", "-m", mode, scratch.file("d/\(name)"))
    }

    /// Asks for a session of a new image of 1 MiB, and releases it.
    private func open(
        _ name: String, _ mode: SessionRequest.Mode = .write,
        token: String = HTTPServerUserTests.limited
    ) throws -> HTTPAnswer {
        let header = "Authorization: Bearer \(token)"
        let connection = try HTTPConnection(port: server.port)
        let answer = try connection.ask(
            "POST", Route.sessions(device: scratch.file("d/\(name)")).path, [Wire.json, header],
            body: WireJSON.encode(Wire.sessionRequest(mode, size: 1 << 20)))
        if answer.status == 201 {
            let id = try answer.decoded(as: SessionRecord.self).session
            let end = try connection.ask("DELETE", Route.session(id).path, [header])
            #expect(end.status == 204, "\(end.text)")
        }
        return answer
    }

    @Test(arguments: [SessionRequest.Mode.write, .dryRun])
    func `a directory whose files cannot be counted has no room for max-size`(
        mode: SessionRequest.Mode
    ) throws {
        try directory("sub", mode: "733")
        for name in ["new", "sub/new"] {
            let answer = try open(name, mode)
            #expect(answer.status == 409 && answer.problem == .refused, "\(answer.text)")
            let problem = try answer.decoded(as: Problem.self)
            #expect(problem.cause == "size" && problem.detail.contains("Permission denied"))
            #expect(!problem.detail.contains("sub"), "it may be hidden from the token")
        }
        try must("chmod", "755", scratch.file("d/sub"))
        #expect(try open("new", mode).status == 201)
    }

    @Test(arguments: ["555", "733"], [SessionRequest.Mode.write, .dryRun])
    func `a directory that the server may not write or read is no failure of a device`(
        permissions: String, mode: SessionRequest.Mode
    ) throws {
        try directory("sub", mode: permissions)
        let answer = try open("sub/new", mode, token: Self.unlimited)
        #expect(answer.status == 403 && answer.problem == .deviceError, "\(answer.text)")
        let problem = try answer.decoded(as: Problem.self)
        #expect(problem.detail == "the server's user may not do that: Permission denied")
        #expect(problem.operation == "create" && problem.errno == Int(EACCES))
        #expect(problem.advice?.contains("directory") == true)
        #expect(!FileManager.default.fileExists(atPath: scratch.file("d/sub/new")))
        try must("chown", "nobody", scratch.file("d/sub"))
        try must("chmod", "700", scratch.file("d/sub"))
        #expect(try open("sub/new", mode, token: Self.unlimited).status == 201)
    }

    @Test func `a directory that the server may not enter takes no room`() throws {
        try directory("lost+found", mode: "700")
        try must("truncate", "-s", "8M", scratch.file("d/lost+found/file"))
        let answer = try open("new")
        #expect(answer.status == 201, "\(answer.text)")
    }
}
