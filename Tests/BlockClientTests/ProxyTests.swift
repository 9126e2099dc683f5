// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import LinuxIO
import TestSupport
import Testing
import WireProtocol

@testable import BlockClient

/// Which proxy a server is reached through: libcurl's rules, but never for this machine.
@Suite struct ProxyChoiceTests {
    private func proxy(
        _ url: String, _ environment: [String: String], local: Set<String> = []
    ) throws -> String? {
        guard case .remote(let location) = try Location(url) else { return nil }
        return Proxy(for: location, environment: { environment[$0] }, localNames: { local })?
            .description
    }

    @Test(
        arguments: [
            ("http://h/", ["http_proxy": "http://p:1"], "http://p:1 (http_proxy)"),
            ("http://h/", ["HTTP_PROXY": "http://p:1"], nil),
            ("http://h/", ["https_proxy": "http://p:1"], nil),
            ("https://h/", ["http_proxy": "http://p:1"], nil),
            ("https://h/", ["https_proxy": "p:1"], "http://p:1 (https_proxy)"),
            ("https://h/", ["HTTPS_PROXY": "p:1"], "http://p:1 (HTTPS_PROXY)"),
            ("https://h/", ["HTTPS_PROXY": "a", "https_proxy": "b"], "http://b (https_proxy)"),
            ("http://h/", ["all_proxy": "socks5://p"], "socks5://p (all_proxy)"),
            ("http://h/", ["ALL_PROXY": "p", "http_proxy": ""], "http://p (ALL_PROXY)"),
            ("http://h/", ["all_proxy": "a", "http_proxy": "b"], "http://b (http_proxy)"),
            ("ssh://h/", ["all_proxy": "a", "http_proxy": "b"], nil),
            ("http://h/", ["http_proxy": "http://me:secret@p:1/x"], "http://p:1 (http_proxy)"),
            ("http://h/", ["http_proxy": "me:s@cret@p:1"], "http://p:1 (http_proxy)"),
            ("http://h/", [:], nil),
        ] as [(String, [String: String], String?)])
    func `the proxy variables are read as libcurl reads them, and no message shows a password`(
        url: String, environment: [String: String], expected: String?
    ) throws {
        #expect(try proxy(url, environment) == expected)
    }

    @Test(arguments: [
        "127.0.0.1", "127.0.0.2", "127.1", "0x7f000001", "2130706433", "[::1]", "localhost",
        "LOCALHOST", "localhost.", "a.localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "me",
        "ME.",
    ])
    func `a loopback address is never reached through a proxy`(host: String) throws {
        let all = ["http_proxy": "p", "https_proxy": "p", "all_proxy": "p"]
        for scheme in ["http", "https"] {
            #expect(try proxy("\(scheme)://\(host):9/x", all, local: ["me"]) == nil)
        }
    }

    @Test(arguments: [
        ("h", "*", true), ("h", " * ", true), ("h", "*,x", false), ("h", "h", true),
        ("h", "a, h", true), ("h", "a h", true), ("a.h", "h", true), ("a.h", ".h", true),
        ("h", ".h", true), ("ah", "h", false), ("h", "a.h", false), ("H.", "h", true),
        ("h", "h.", true), ("h", "", false), ("h", ",", false), ("h", ".", false),
        ("192.0.2.7", "192.0.2.7", true), ("192.0.2.7", "192.0.2.0/24", true),
        ("192.0.2.7", "192.0.2.8/29", false), ("192.0.2.7", "0.0.0.0/0", true),
        ("192.0.2.7", "192.0.2.0/33", false), ("192.0.2.7", "2.7", false),
        ("2001:db8::1", "2001:db8::/32", true), ("2001:db8::1", "2001:db8::1", true),
        ("2001:db8::1", "[2001:db8::1]", true), ("2001:db8::1", "2001:db9::/32", false),
        ("2001:db8::1", "192.0.2.0/0", false), ("h", "192.0.2.0/24", false),
    ])
    func `no_proxy has names, domains, addresses and networks`(
        host: String, list: String, isException: Bool
    ) {
        #expect(Proxy.isException(host, list) == isException)
    }

    @Test(arguments: [
        ("ftp://user:secret@p:1", "its scheme is not one of "),
        ("socks9://user:secret@p:1", "its scheme is not one of "),
        ("user:secret://x@p:1", "its scheme is not one of "),
        ("http://user:secret@p:99999", "its port is "), ("user:secret@p:x", "its port is "),
        ("user:secret@p:+1", "its port is "), ("user:secret@p: 1", "its port is "),
        ("http://user:secret@[::1]:x", "its port is "),
        ("http://user:sec/ret@p", "an @ follows "), ("http://user:1/secret@p", "an @ follows "),
        ("http://user:sec?ret@p:1", "an @ follows "), ("user:sec#ret@p:1", "an @ follows "),
        ("user:sec@ret@p:1", "it has several @"), ("http://user:secret@", "its host is missing"),
        ("http://user:secret@:80", "its host is missing"), ("", "its host is missing"),
        ("user:secret@p p", "its host is neither "), ("user:secret@[p]:1", "its host is neither "),
        ("user:secret@[::1", "its host is neither "), ("user:secret@p%41", "its host is neither "),
    ])
    func `a URL that libcurl would print with its password is refused before the request`(
        url: String, fault: String
    ) throws {
        guard case .remote(let location) = try Location("http://backup.invalid:9/x") else { return }
        let value = url.isEmpty ? "http://" : url
        let environment = { (name: String) in name == "http_proxy" ? value : nil }
        let found = Proxy(for: location, environment: environment, localNames: { [] })
        let proxy = try #require(found)
        let words = try #require(proxy.fault)
        #expect(words.hasPrefix(fault), "\(words)")
        #expect(!words.contains("sec") && !words.contains("user:"), "\(words)")
    }

    @Test(arguments: [
        "p", "p:1", "http://p:", "HTTP://me:p%40ss@p.example:3128/", "socks5h://u@192.0.2.1:1080",
        "https://[2001:db8::1]:3128", "[fe80::1%25eth0]:1", "pröxy:80", "a_b:65535",
    ])
    func `a proxy URL in a form that libcurl understands has no fault`(url: String) throws {
        guard case .remote(let location) = try Location("http://backup.invalid:9/x") else { return }
        let environment = { (name: String) in name == "http_proxy" ? url : nil }
        let proxy = try #require(
            Proxy(for: location, environment: environment, localNames: { [] }))
        #expect(proxy.fault == nil)
        let error = IOError.transport("no way to '\(url)' or '\(url)'").through(proxy)
        #expect(!error.reason.contains("p%40ss"), "\(error.reason)")
    }

    @Test func `names of this machine are those that its hosts file lists`() {
        let names = Proxy.localNames(
            in:
                "127.0.0.1 localhost # x\n127.0.1.1\tHost host.example\n192.0.2.1 y\n::1 six\n#::1 z\n"
        )
        #expect(names == ["localhost", "host", "host.example", "six"])
    }

    @Test func `a token goes to no proxy over plain HTTP, and may pass one over TLS`() throws {
        let all = ["http_proxy": "http://u:pw@p:1", "https_proxy": "http://p:1"]
        func choice(_ url: String) throws -> Proxy? {
            guard case .remote(let location) = try Location(url) else { return nil }
            return Proxy(for: location, environment: { all[$0] }, localNames: { [] })
        }
        let error = IOError.transport("late").through(try choice("http://h/"))
        #expect(error.reason == "late, through the proxy http://p:1 (http_proxy)")
        #expect(error.advice?.contains("no_proxy") == true)
        #expect(IOError.transport("late").through(nil).reason == "late")
    }

    @Test(arguments: [
        ("http://192.0.2.7/x", true), ("http://backup.invalid:9", true),
        ("http://[2001:db8::1]:8080/x", true), ("http://127.0.0.1:8080/x", false),
        ("http://localhost/x", false), ("http://[::1]/x", false),
        ("https://192.0.2.7/x", false), ("ssh://192.0.2.7/x", false),
        ("unix:/run/blkferry.sock:/x", false),
    ])
    func `others can read a token over plain HTTP to another machine, and nowhere else`(
        url: String, isExposed: Bool
    ) throws {
        guard case .remote(let location) = try Location(url) else {
            Issue.record("not remote")
            return
        }
        // Through a proxy it is not sent at all.
        let expected = isExposed && Proxy(for: location) == nil
        #expect(RemoteServer.exposesToken(location) == expected)
    }

    @Test func `a request that fails because of an earlier request names the proxy as well`() throws
    {
        let gateway = ScriptedServer { connection, _ in
            while connection.readRequest() != nil { connection.answer(502) }
        }
        defer { gateway.stop() }
        guard case .remote(let location) = try Location("http://backup.invalid/") else { return }
        let proxy = Proxy(
            for: location, environment: { ["http_proxy": gateway.base][$0] }, localNames: { [] })
        let transport = try makeTransport("http://backup.invalid") {
            $0.proxy = proxy
            $0.retrySeconds = 0
        }
        #expect(try transport.call().status == 502)
        let error = failure { () throws(IOError) in try transport.call() }
        let way = "through the proxy \(gateway.base) (http_proxy)"
        #expect(error?.reason == "the server answers HTTP 502, \(way)")
    }
}

/// What libcurl says, in words that help.
@Suite struct CurlAdviceTests {
    private func error(
        _ code: Int, _ message: String, verify: Int = 0, trust: ServerTrust = ServerTrust(),
        now: Int = 0
    ) -> IOError? {
        let failure = CurlFailure(
            number: UInt32(code), message: message, verifyResult: verify, trust: trust, now: now)
        return switch failure.outcome {
        case .final(let error), .lost(let error), .notConnected(let error): error
        case .answer: nil
        }
    }

    @Test func `the advice for a certificate that is not valid yet is to check the clock`() {
        let words = "SSL certificate problem: certificate is not yet valid"
        let error = error(60, words, verify: 9, now: 754)
        #expect(error?.kind == .unauthorized)
        #expect(
            error?.advice == "Look at the clock of this machine, which says 1970-01-01 00:12 UTC.")
        let late = self.error(60, "certificate has expired", verify: 10, now: 4_102_444_800)
        #expect(late?.advice?.contains("2100-01-01 00:00 UTC") == true)
    }

    @Test func `the advice without a list of authorities is to install a package`() {
        let words = "error setting certificate file: /etc/ssl/certs/ca-certificates.crt"
        let advice = error(77, words)?.advice
        #expect(advice?.contains("ca-certificates") == true && advice?.contains("--cacert") == true)
        // Those who name a file have no use for that.
        let named = error(77, "x", trust: ServerTrust(authorities: "/x"))?.advice
        #expect(named == "The file after --cacert must hold certificates in PEM form.")
        #expect(error(60, "self-signed", verify: 18)?.advice?.contains("--cacert") == true)
    }
}
