// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// The program with a real proxy in its environment, and a server whose name only the proxy knows.
@Suite(.blocking, .timeLimit(.minutes(60))) struct ProxyTests {
    private let scratch: ScratchDirectory
    private let image: String
    private let copy: String
    private let token: String
    private let size = 3 << 20
    /// A name that no resolver has (RFC 6761, section 6.4).
    private let host = "backup.invalid"

    init() throws {
        scratch = try ScratchDirectory()
        image = try scratch.filledFile("image", size: size, seed: 8)
        copy = scratch.file("copy")
        token = String(try must(program, "token").dropLast())
        try must(
            "sh", "-c", "umask 077; cat > \"$0\"", scratch.file("tokens"), input: "me \(token)\n")
    }

    private var tokenFile: [String] { ["--token-file", scratch.file("tokens")] }

    /// Runs the program with variables, and none of this process's own about proxies.
    private func run(_ arguments: [String], _ variables: [String: String]) throws -> ProgramResult {
        let names = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"]
        let none = (names + names.map { $0.uppercased() }).flatMap { ["-u", $0] }
        let ours = variables.map { "\($0.key)=\($0.value)" }
        return try RunningProgram(["env"] + none + ours + [program] + arguments).wait()
    }

    @Test(arguments: ["http_proxy", "all_proxy", "ALL_PROXY"])
    func `a token never goes to a proxy over plain HTTP, whatever the command`(variable: String)
        throws
    {
        let server = try ServeProcess(image + ":rw", options: tokenFile)
        let proxy = try WebProxy()
        try must("cp", image, copy)
        let url = server.url(image, on: host)
        for arguments in [
            ["list", server.url("", on: host)], [url, copy], [copy, url], ["verify", url, copy],
            ["-n", url, copy],
        ] {
            let result = try run(arguments, [variable: proxy.url, "BLKFERRY_TOKEN": token])
            #expect(result.status == 5, "\(result)")
            #expect(
                result.errors.contains(
                    "the token would go to the proxy \(proxy.url) (\(variable)) in clear"),
                "\(result)")
            #expect(result.errors.contains("no_proxy=\(host)"), "\(result)")
            // Nothing was sent.
            #expect(!result.errors.contains("warning"), "\(result)")
        }
        #expect(try proxy.received().isEmpty)
    }

    @Test func `without a token the proxy is used, and named`() throws {
        let server = try ServeProcess(image)
        let proxy = try WebProxy()
        let user = "http://me:hunter2@127.0.0.1:\(proxy.port)"
        let result = try run(
            ["-v", server.url(image, on: host), copy], ["http_proxy": user])
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(image, copy))
        #expect(try proxy.hasReceived(" http://\(host):\(server.port)/v1"))
        #expect(result.errors.contains("through the proxy \(proxy.url) (http_proxy)"), "\(result)")
        #expect(!result.errors.contains("hunter2"))
    }

    @Test(arguments: ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]"])
    func `a loopback address is never reached through a proxy, with a token or without`(
        host: String
    ) throws {
        let open = try ServeProcess(image)
        let closed = try ServeProcess(image, options: tokenFile)
        let proxy = try WebProxy()
        let variables = [
            "http_proxy": proxy.url, "https_proxy": proxy.url, "all_proxy": proxy.url,
        ]
        let cases: [(ServeProcess, [String: String])] = [
            (open, [:]), (closed, ["BLKFERRY_TOKEN": token]),
        ]
        for (server, secret) in cases {
            let result = try run(
                ["-q", server.url(image, on: host), copy], variables.merging(secret) { $1 })
            #expect(result.status == 0, "\(result)")
        }
        #expect(try areEqual(image, copy))
        #expect(try proxy.received().isEmpty)
    }

    @Test func `a server in no_proxy is not reached through the proxy`() throws {
        let server = try ServeProcess(image)
        let proxy = try WebProxy()
        let result = try run(
            ["list", server.url("", on: host)], ["http_proxy": proxy.url, "no_proxy": ".invalid"])
        #expect(result.status == 4, "\(result)")
        #expect(!result.errors.contains("proxy"), "\(result)")
        #expect(try proxy.received().isEmpty)
    }

    @Test func `with TLS the proxy connects, and sees neither token nor request`() throws {
        let authority = try TestAuthority("authority", in: scratch)
        let mine = try authority.certificate("server", for: "DNS:\(host)")
        let server = try ServeProcess(
            image + ":rw", options: tokenFile + ["--tls-cert", mine.path, "--tls-key", mine.key])
        let proxy = try WebProxy()
        let trust = ["--cacert", authority.path]
        let url = server.url(image, on: host)
        for arguments in [["-q", url, copy], ["-q", copy, url], ["verify", url, copy]] {
            let result = try run(
                arguments + trust, ["https_proxy": proxy.url, "BLKFERRY_TOKEN": token])
            #expect(result.status == 0, "\(result)")
        }
        #expect(try areEqual(image, copy))
        #expect(try proxy.hasReceived("CONNECT \(host):\(server.port) HTTP/1.1\r\n"))
        for text in [token, "Authorization", "authorization", "/v1/sessions"] {
            #expect(try !proxy.hasReceived(text), "\(text)")
        }
    }

    @Test(arguments: [403, 407], [false, true])
    func `a proxy that refuses is named, with its status`(status: Int, withTLS: Bool) throws {
        let proxy = try WebProxy(status: status)
        let (scheme, variable) = withTLS ? ("https", "https_proxy") : ("http", "http_proxy")
        let result = try run(
            ["\(scheme)://\(host):9/dev/x", copy],
            [variable: proxy.url])
        #expect(result.status == 4, "\(result)")
        #expect(result.errors.contains("\(status)"), "\(result)")
        #expect(
            result.errors.contains("through the proxy \(proxy.url) (\(variable))"), "\(result)")
        #expect(!FileManager.default.fileExists(atPath: copy))
    }
}
