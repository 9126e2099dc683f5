// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Server and client on hosts of their own.
@Suite(
    .enabled(if: NetworkNamespaces.isAvailable, "network namespaces need root and ip(8)"),
    .blocking, .timeLimit(.minutes(60)))
struct TwoHostsTests {
    @Test(arguments: [4, 6])
    func `a device is copied over the cable and back`(version: Int) throws {
        let size = 16 << 20
        let pair = try NetworkNamespaces()
        let source = try LoopDevice(size: size)
        let there = try LoopDevice(size: size)
        let back = try LoopDevice(size: size)
        try fill(source.path, seed: 1, size: 9 << 20, offset: 1 << 20)
        let host = version == 4 ? pair.first.ipv4 : "[\(pair.first.ipv6)]"
        let server = try ServeProcess(
            "\(there.path):rw", on: host, options: ["--insecure"],
            prefix: pair.run(in: pair.first))
        let client = pair.run(in: pair.second) + [program, "--verify"]
        for arguments in [
            [source.path, server.url(there.path)], [server.url(there.path), back.path],
        ] {
            let result = try RunningProgram(client + arguments).wait()
            #expect(result.status == 0, "\(result)")
        }
        #expect(try areEqual(source.path, there.path))
        #expect(try areEqual(source.path, back.path))
        #expect(try server.log().contains("without any protection"))
    }

    @Test func `a token over plain HTTP to another machine gives a warning, and over TLS none`()
        throws
    {
        let scratch = try ScratchDirectory()
        let pair = try NetworkNamespaces()
        let image = try scratch.sparseFile("image", size: 1 << 20)
        let copy = scratch.file("copy")
        let token = String(try must(program, "token").dropLast())
        let tokens = scratch.file("tokens")
        try must("sh", "-c", "umask 077; cat > \"$0\"", tokens, input: "me \(token)\n")
        let authority = try TestAuthority("authority", in: scratch)
        let mine = try authority.certificate("server", for: "IP:\(pair.first.ipv4)")
        func start(_ options: [String]) throws -> ServeProcess {
            try ServeProcess(
                image + ":rw", on: pair.first.ipv4, options: ["--token-file", tokens] + options,
                prefix: pair.run(in: pair.first))
        }
        let plain = try start([])
        let secure = try start(["--tls-cert", mine.path, "--tls-key", mine.key])
        let cases: [(ServeProcess, [String])] = [
            (plain, []), (secure, ["--cacert", authority.path]),
        ]
        for (server, trust) in cases {
            let url = server.url(image)
            let warning =
                "blkferry: warning: \(server.url("").dropLast()): the token crosses the network in "
                + "clear; https:// hides it\n"
            for arguments in [["list", url], [url, copy], [copy, url], ["verify", url, copy]] {
                let result = try RunningProgram(
                    pair.run(in: pair.second) + [program] + arguments + trust,
                    environment: ["BLKFERRY_TOKEN": token]
                ).wait()
                #expect(result.status == 0, "\(result)")
                #expect(result.errors == (server === plain ? warning : ""), "\(result)")
            }
        }
    }

    @Test func `without --insecure a server does not listen where others reach it`() throws {
        let result = try blkferry("serve", "--export-all", "--listen", "0.0.0.0:0")
        #expect(result.status == 64)
        #expect(result.errors.contains("--insecure"))
    }
}
