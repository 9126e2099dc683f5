// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// TLS as users have it: certificates of openssl(1), curl, `openssl s_client`.
@Suite(.blocking, .timeLimit(.minutes(60))) struct TLSTests {
    private let scratch: ScratchDirectory
    private let image: String
    private let size = 4 << 20
    private let authority: TestAuthority

    init() throws {
        scratch = try ScratchDirectory()
        image = try scratch.filledFile("image", size: size, seed: 5)
        authority = try TestAuthority("authority", in: scratch)
    }

    private func options(_ certificate: TestAuthority.Certificate) -> [String] {
        ["--tls-cert", certificate.path, "--tls-key", certificate.key]
    }

    private func goodServer(_ more: [String] = [], exports: String? = nil) throws -> ServeProcess {
        let mine = try authority.certificate("server", for: "DNS:localhost,IP:127.0.0.1")
        return try ServeProcess(exports ?? image, options: options(mine) + more)
    }

    private func content(_ path: String) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: path))
    }

    @Test func `all commands work over TLS, and name the server as its certificate does`() throws {
        let copy = scratch.file("copy")
        let server = try goodServer(exports: image + ":rw")
        let trust = ["--cacert", authority.path]
        for host in ["127.0.0.1", "localhost"] {
            let list = try blkferry("list", server.url("", on: host), "--cacert", authority.path)
            #expect(list.status == 0 && list.output.contains(image), "\(list)")
        }
        let pull = try RunningProgram([program, server.url(image), copy] + trust).wait()
        #expect(pull.status == 0, "\(pull)")
        #expect(try content(copy) == content(image))
        try fill(copy, seed: 6, size: size / 2)
        let push = try RunningProgram([program, copy, server.url(image)] + trust).wait()
        #expect(push.status == 0, "\(push)")
        let verify = try RunningProgram([program, "verify", copy, server.url(image)] + trust).wait()
        #expect(verify.status == 0, "\(verify)")
        #expect(try content(copy) == content(image))
    }

    @Test(arguments: ["tls1_1": false, "tls1_2": true, "tls1_3": true])
    func `the server speaks TLS 1.2 and 1.3, and nothing older`(
        version: String, works: Bool
    ) throws {
        let server = try goodServer()
        let result = try run(
            "openssl", "s_client", "-connect", "127.0.0.1:\(server.port)", "-\(version)",
            "-CAfile", authority.path, "-verify_return_error", "-cipher", "ALL:@SECLEVEL=0")
        #expect((result.status == 0) == works, "\(result)")
        #expect(result.output.contains("no peer certificate available") != works, "\(result)")
    }

    @Test func `curl reads ranges over TLS, and not without the authority`() throws {
        let server = try goodServer()
        let encoded = image.replacingOccurrences(of: "/", with: "%2F")
        let url = server.url("/v1/devices/\(encoded)/content")
        let part = scratch.file("part")
        try must("curl", "-sS", "--cacert", authority.path, "-r", "1000-2000999", "-o", part, url)
        #expect(try content(part) == content(image)[1000..<2_001_000])
        #expect(try run("curl", "-sS", "-o", part, url).status == 60)
    }

    @Test(arguments: [
        ("expired", "certificate has expired"),
        ("wrong host", "no alternative certificate subject name matches"),
        ("self-signed", "self-signed certificate"),
        ("another authority", "unable to get local issuer certificate"),
    ])
    func `a certificate that cannot be trusted ends with 5 and the reason`(
        kind: String, reason: String
    ) throws {
        let name = "IP:127.0.0.1"
        let certificate: [String]
        switch kind {
        case "expired": certificate = options(try authority.certificate("s", for: name, days: -1))
        case "wrong host": certificate = options(try authority.certificate("s", for: "DNS:other"))
        case "self-signed": certificate = ["--tls-self-signed"]
        default:
            let other = try TestAuthority("other", in: scratch)
            certificate = options(try other.certificate("s", for: name))
        }
        let server = try ServeProcess(image, options: certificate)
        #expect(
            try server.log().contains("the certificate has expired") == (kind == "expired"))
        let copy = scratch.file("copy")
        for arguments in [["list", server.url("")], [server.url(image), copy]] {
            let result = try RunningProgram(
                [program] + arguments + ["--cacert", authority.path]
            ).wait()
            #expect(result.status == 5 && result.errors.contains(reason), "\(result)")
            #expect(result.errors.split(separator: "\n").count == 2, "\(result)")
        }
        #expect(!FileManager.default.fileExists(atPath: copy))
        #expect(try !server.log().contains("session"))
    }

    @Test func `the pin that the server prints is all that a client needs`() throws {
        func pin(_ server: ServeProcess) throws -> String {
            let output = try server.process.outputSoFar()
            let words = output.split { $0 == " " || $0 == "\n" }.map(String.init)
            let command = Array(words.drop { $0 != "blkferry" })
            try #require(command.count == 5 && command[1...2] == ["list", "--pinned-pubkey"])
            #expect(command[4] == "https://127.0.0.1:\(server.port)")
            return command[3]
        }
        let (first, second) = (
            try ServeProcess(image, options: ["--tls-self-signed"]),
            try ServeProcess(image, options: ["--tls-self-signed"])
        )
        let copy = scratch.file("copy")
        #expect(try pin(first) != pin(second))
        let right = try blkferry(first.url(image), copy, "--pinned-pubkey", try pin(first))
        #expect(right.status == 0, "\(right)")
        #expect(try content(copy) == content(image))
        let both = try blkferry(
            "list", first.url(""), "--pinned-pubkey", "\(try pin(second));\(try pin(first))")
        #expect(both.status == 0, "\(both)")
        let wrong = try blkferry(first.url(image), copy, "--pinned-pubkey", try pin(second))
        #expect(wrong.status == 5)
        #expect(wrong.errors.contains("the server's key is not the pinned one"), "\(wrong)")
        // With an authority as well, both must be right.
        let strict = try blkferry(
            "list", first.url(""), "--pinned-pubkey", try pin(first), "--cacert", authority.path)
        #expect(strict.status == 5 && strict.errors.contains("self-signed"), "\(strict)")
        // openssl finds the same key.
        let key = try must(
            "sh", "-c",
            """
            openssl s_client -connect 127.0.0.1:\(first.port) </dev/null 2>/dev/null |
                openssl x509 -pubkey -noout | openssl pkey -pubin -outform der |
                openssl dgst -sha256 -binary | base64
            """)
        #expect(try pin(first) == "sha256//" + key.trimmingCharacters(in: .newlines))
    }

    @Test func `a server that requests certificates admits those of its authority`() throws {
        let server = try goodServer(["--tls-client-ca", authority.path], exports: image + ":rw")
        let other = try TestAuthority("other", in: scratch)
        func list(_ certificate: TestAuthority.Certificate?) throws -> ProgramResult {
            var arguments = [program, "list", server.url(""), "--cacert", authority.path]
            if let certificate {
                arguments += ["--cert", certificate.path, "--key", certificate.key]
            }
            return try RunningProgram(arguments).wait()
        }
        let good = try authority.certificate("alice")
        #expect(try list(good).status == 0)
        for (certificate, reason) in [
            (nil, "none was sent"), (try other.certificate("alice"), "its authority is unknown"),
            (try authority.certificate("late", days: -1), "it has expired"),
            (try authority.certificate("Alice in Chains"), "common name is not"),
        ] {
            let result = try list(certificate)
            #expect(result.status == 5 && result.errors.contains(reason), "\(result)")
        }
        // The key may be in the certificate's file.
        let file = scratch.file("together")
        try must("sh", "-c", "umask 077; cat \(good.path) \(good.key) > \(file)")
        let copy = scratch.file("copy")
        let pull = try blkferry(
            server.url(image), copy, "--cacert", authority.path, "--cert", file)
        #expect(pull.status == 0, "\(pull)")
        #expect(try server.log().contains("client=alice"))

        let address = "127.0.0.1:\(server.port)"
        let trust = ["--cacert", authority.path]
        let without = try RunningProgram(["curl", "-sS", "https://\(address)/v1"] + trust).wait()
        #expect(without.status != 0 && without.output.isEmpty, "\(without)")
        let with = try RunningProgram(
            ["curl", "-sS", "https://\(address)/v1", "--cert", good.path, "--key", good.key] + trust
        ).wait()
        #expect(with.status == 0 && with.output.contains("\"digests\""), "\(with)")
        let client = try must(
            "sh", "-c",
            """
            printf 'GET /v1 HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' |
                openssl s_client -quiet -connect \(address) 2>&1 || true
            """)
        #expect(client.contains("certificate required") && !client.contains("200 OK"), "\(client)")
    }

    @Test(arguments: [
        (
            "-tls1_2 -cipher ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA:AES128-SHA@SECLEVEL=0",
            false
        ),
        ("-tls1_2 -cipher ECDHE-RSA-AES256-SHA384:ECDHE-ECDSA-AES256-SHA384:AES256-SHA256", false),
        ("-tls1_2 -cipher AES128-GCM-SHA256", false),
        ("-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256", true),
        ("-tls1_2 -cipher ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-CHACHA20-POLY1305", true),
        ("-tls1_3", true),
    ])
    func `in TLS 1.2 only ciphers with authentication and forward secrecy are taken`(
        options: String, isTaken: Bool
    ) throws {
        let server = try goodServer([], exports: image)
        let output = try must(
            "sh", "-c",
            """
            printf 'GET /v1 HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' |
                openssl s_client -quiet \(options) -connect 127.0.0.1:\(server.port) 2>&1 || true
            """)
        #expect(output.contains("200 OK") == isTaken, "\(output)")
    }

    @Test func `a certificate's name has the rights of its line in the token file`() throws {
        let tokens = scratch.file("tokens")
        let token = try must(program, "token").trimmingCharacters(in: .newlines)
        try must(
            "sh", "-c",
            "umask 077; printf 'alice - ro\\nbob \(token)\\nnone - /nowhere\\n' > \(tokens)")
        let server = try goodServer(
            ["--tls-client-ca", authority.path, "--token-file", tokens], exports: image + ":rw")
        let copy = try scratch.filledFile("copy", size: size, seed: 9)
        func status(_ name: String, _ arguments: [String], token: String? = nil) throws -> Int {
            let certificate = try authority.certificate(name)
            let result = try RunningProgram(
                [program] + arguments + [
                    "--cacert", authority.path, "--cert", certificate.path, "--key",
                    certificate.key,
                ], environment: token.map { ["BLKFERRY_TOKEN": $0] } ?? [:]
            ).wait()
            return result.status
        }
        let url = server.url(image)
        #expect(try status("alice", ["verify", copy, url]) == 1)
        #expect(try status("alice", [copy, url]) == 2)
        #expect(try status("alice", [copy, url], token: token) == 2, "her line counts")
        #expect(try status("none", ["verify", copy, url]) == 3)
        #expect(try status("carol", ["verify", copy, url]) == 5)
        #expect(try status("carol", ["verify", copy, url], token: token) == 1)
        #expect(try status("bob", [copy, url]) == 0)
        #expect(try content(copy) == content(image))
        #expect(try server.log().contains("client=bob"))
    }

    @Test func `SIGHUP loads another certificate, and a run goes on`() throws {
        let server = try goodServer()
        let copy = scratch.file("copy")
        let client = try RunningProgram([
            program, "-v", server.url(image), copy, "--cacert", authority.path, "--bwlimit", "400K",
        ])
        while client.isRunning, try !server.log().contains("session begins") { usleep(5_000) }
        let other = try TestAuthority("other", in: scratch)
        let next = try other.certificate("server", for: "IP:127.0.0.1")
        for (new, old) in [("pem", next.path), ("key", next.key)] {
            try must("cp", old, scratch.file("authority-server.\(new)"))
        }
        server.process.signal(SIGHUP)
        while server.process.isRunning, try !server.log().contains(" reloaded") { usleep(5_000) }
        #expect(client.isRunning)
        let before = try blkferry("list", server.url(""), "--cacert", authority.path)
        #expect(before.status == 5, "\(before)")
        let after = try blkferry("list", server.url(""), "--cacert", other.path)
        #expect(after.status == 0, "\(after)")
        let result = try client.wait()
        #expect(result.status == 0, "\(result)")
        #expect(try content(copy) == content(image))

        try must("cp", "/dev/null", scratch.file("authority-server.key"))
        server.process.signal(SIGHUP)
        while server.process.isRunning, try !server.log().contains("not reloaded") { usleep(5_000) }
        #expect(try blkferry("list", server.url(""), "--cacert", other.path).status == 0)
    }

    @Test func `an unusable TLS option is an error of one line, with 64`() throws {
        let good = try authority.certificate("server", for: "IP:127.0.0.1")
        let other = try authority.certificate("other", for: "IP:127.0.0.1")
        let loose = scratch.file("loose")
        try must("sh", "-c", "cat \(good.key) > \(loose); chmod 644 \(loose)")
        let empty = scratch.file("empty")
        try must("sh", "-c", "umask 077; cat \(good.path) > \(empty)")
        let url = "https://127.0.0.1:1"
        let pin = "sha256//" + Data(count: 32).base64EncodedString()
        for (arguments, reason) in [
            (["--tls-cert", good.path], "--tls-cert and --tls-key belong together"),
            (["--tls-cert", good.path, "--tls-key", other.key], "does not fit the certificate"),
            (["--tls-cert", image, "--tls-key", good.key], "contains no certificate in PEM form"),
            (["--tls-cert", good.path, "--tls-key", empty], "contains no usable private key"),
            (["--tls-cert", good.path, "--tls-key", "/nowhere"], "/nowhere: open: No such file"),
            (["--tls-cert", good.path, "--tls-key", loose], "others can read or change it"),
            (["--tls-client-ca", good.path], "shows its certificate in TLS only"),
            (
                ["--tls-self-signed", "--tls-cert", good.path, "--tls-key", good.key],
                "exclude each other"
            ),
        ] {
            let result = try RunningProgram(
                [program, "serve", "--listen", "127.0.0.1:0", "--export", image] + arguments
            ).wait()
            #expect(result.status == 64 && result.errors.contains(reason), "\(result)")
        }
        for (arguments, reason) in [
            ([url, "--key", good.key], "say --cert as well"),
            ([url, "--cert", good.path, "--key", loose], "others can read or change it"),
            ([url, "--cacert", "/nowhere"], "/nowhere: open: No such file"),
            ([url, "--pinned-pubkey", "sha256//abc"], "not sha256// and the base64 of 32 bytes"),
            (["http://127.0.0.1:1", "--pinned-pubkey", pin], "--pinned-pubkey is for https"),
            (["http://127.0.0.1:1", "--cacert", good.path], "--cacert is for https"),
        ] {
            let result = try RunningProgram([program, "list"] + arguments).wait()
            #expect(result.status == 64 && result.errors.contains(reason), "\(result)")
        }
    }

    @Test func `the error tells TLS and plain HTTP apart`() throws {
        let (plain, secure) = (try ServeProcess(image), try goodServer())
        let first = try blkferry("list", "http://127.0.0.1:\(secure.port)")
        #expect(first.status == 4)
        #expect(
            first.errors.hasSuffix(
                """
                list: the server speaks TLS
                  Write https:// in place of http://.

                """), "\(first)")
        let second = try blkferry("list", "https://127.0.0.1:\(plain.port)")
        #expect(second.status == 4)
        #expect(second.errors.contains("the server does not speak TLS"), "\(second)")
    }

    @Test func `a token and a pin protect an address that others reach`() throws {
        let server = try ServeProcess(
            image, on: "0.0.0.0", options: ["--one-time-token", "--tls-self-signed"])
        #expect(try !server.log().contains("warning"))
        let output = try server.process.outputSoFar()
        #expect(output.contains("BLKFERRY_TOKEN=") && output.contains("--pinned-pubkey sha256//"))
        let authorities = try ServeProcess(
            image, on: "0.0.0.0", options: ["--tls-self-signed", "--tls-client-ca", authority.path])
        #expect(try !authorities.log().contains("warning"))
        let nobody = try blkferry(
            "serve", "--listen", "0.0.0.0:0", "--export", image, "--tls-self-signed")
        #expect(nobody.status == 64 && nobody.errors.contains("--tls-client-ca"), "\(nobody)")
    }
}
