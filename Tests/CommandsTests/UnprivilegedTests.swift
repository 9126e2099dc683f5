// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// What works without root, tried as the user nobody.
@Suite(.blocking, .timeLimit(.minutes(60)), .enabled(if: isRoot)) struct UnprivilegedTests {
    @Test func `unprivileged users serve, push and pull images, with token and TLS`() throws {
        let scratch = try ScratchDirectory()
        let size = 2 << 20
        let image = try scratch.filledFile("image", size: size, seed: 1)
        let binary = scratch.file("blkferry")
        try must("cp", program, binary)
        let token = try must(program, "token").trimmingCharacters(in: .newlines)
        let (tokens, mine) = (scratch.file("tokens"), scratch.file("mine"))
        try must("sh", "-c", "umask 077; echo me \(token) > \(tokens); echo \(token) > \(mine)")
        let authority = try TestAuthority("authority", in: scratch)
        let certificate = try authority.certificate("server", for: "IP:127.0.0.1")
        let directory = scratch.file("images")
        try must("mkdir", directory)
        let home = URL(fileURLWithPath: image).deletingLastPathComponent().path
        try must("chown", "-R", "nobody:nogroup", home)
        try must("chmod", "755", home)

        let user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        let server = try ServeProcess(
            image, directory + "/:rw",
            options: [
                "--token-file", tokens, "--tls-cert", certificate.path, "--tls-key",
                certificate.key,
            ], prefix: user, binary: binary)
        func client(_ arguments: String...) throws -> ProgramResult {
            try RunningProgram(
                user + [binary] + arguments + ["--cacert", authority.path, "--token-file", mine]
            ).wait()
        }
        let copy = scratch.file("copy")
        let pull = try client(server.url(image), copy)
        #expect(pull.status == 0, "\(pull)")
        let push = try client(copy, server.url(directory + "/new"))
        #expect(push.status == 0, "\(push)")
        for path in [copy, directory + "/new"] {
            #expect(
                try Data(contentsOf: URL(fileURLWithPath: path))
                    == Data(contentsOf: URL(fileURLWithPath: image)))
        }
    }
}
