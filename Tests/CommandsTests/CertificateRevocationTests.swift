// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Certificates of clients that are not taken any more, as openssl(1) and curl have them.
@Suite(.blocking, .timeLimit(.minutes(60))) struct CertificateRevocationTests {
    private let scratch: ScratchDirectory
    private let image: String
    private let authority: TestAuthority
    private let authorities: String

    init() throws {
        scratch = try ScratchDirectory()
        image = try scratch.filledFile("image", size: 4 << 20, seed: 5)
        authority = try TestAuthority("authority", in: scratch)
        authorities = scratch.file("authorities")
        try must("cp", authority.path, authorities)
    }

    private func server(_ export: String, _ options: [String] = []) throws -> ServeProcess {
        let mine = try authority.certificate("server", for: "IP:127.0.0.1")
        return try ServeProcess(
            export,
            options: [
                "--tls-cert", mine.path, "--tls-key", mine.key, "--tls-client-ca", authorities,
            ] + options)
    }

    /// A session that is ended is logged after its flush, which the client does not wait for.
    private func isLogged(_ text: String, by server: ServeProcess) throws -> Bool {
        let deadline = ContinuousClock.now + .seconds(60)
        while try !server.log().contains(text) {
            guard ContinuousClock.now < deadline else { return false }
            usleep(5_000)
        }
        return true
    }

    private func reload(_ server: ServeProcess) throws {
        server.process.signal(SIGHUP)
        while server.process.isRunning, try !server.log().contains(" reloaded") { usleep(5_000) }
    }

    /// A certificate that expires soon, but is used before that on a busy machine as well.
    private func briefCertificate(_ name: String, seconds: Int) throws -> TestAuthority.Certificate
    {
        let whole = try authority.certificate(name)
        let path = scratch.file("brief.pem")
        let directory = scratch.file("ca")
        try must(
            "sh", "-c",
            """
            mkdir \(directory) && cd \(directory) && : >index && echo 01 >serial && cat >config <<E
            [ca]
            default_ca=d
            [d]
            database=index
            serial=serial
            new_certs_dir=.
            default_md=sha256
            policy=p
            [p]
            commonName=supplied
            E
            openssl ca -batch -config config -cert \(authority.path) \
                -keyfile \(scratch.file("authority.key")) -in \(scratch.file("authority-\(name).csr")) \
                -out \(path) -notext -startdate 20200101000000Z \
                -enddate $(date -u -d "+\(seconds) seconds" +%Y%m%d%H%M%SZ)
            """)
        return TestAuthority.Certificate(path: path, key: whole.key)
    }

    @Test(arguments: ["-tls1_2", "-tls1_3"])
    func `an expired certificate does not live on by TLS resumption`(version: String) throws {
        let server = try server(image)
        let brief = try briefCertificate("alice", seconds: 20)
        let session = scratch.file("session")
        func ask(_ options: String) throws -> String {
            try must(
                "sh", "-c",
                """
                (printf 'GET /v1 HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n'; sleep 0.5) |
                    openssl s_client -ign_eof \(version) -connect 127.0.0.1:\(server.port) \
                    -cert \(brief.path) -key \(brief.key) \(options) 2>&1 || true
                """)
        }
        let first = try ask("-sess_out \(session)")
        #expect(first.contains("200 OK"), "\(first)")
        let again = try ask("-sess_in \(session)")
        #expect(again.contains("Reused, TLS") && again.contains("200 OK"), "\(again)")
        var last = again
        let end = ContinuousClock.now + .seconds(90)
        while last.contains("200 OK"), ContinuousClock.now < end {
            usleep(200_000)
            last = try ask("-sess_in \(session)")
        }
        #expect(!last.contains("200 OK"), "\(last)")
        #expect(last.contains("the client's certificate has expired"), "\(last)")
    }

    @Test func `a connection and a session do not outlast the certificate`() throws {
        let server = try server(image + ":rw")
        let brief = try briefCertificate("alice", seconds: 15)
        let copy = scratch.file("copy")
        let run = try RunningProgram([
            program, server.url(image), copy, "--cacert", authority.path, "--cert", brief.path,
            "--key", brief.key, "--bwlimit", "100K",
        ])
        let result = try run.wait()
        #expect(result.status == 5, "\(result)")
        #expect(try isLogged("not allowed any more", by: server))
    }

    @Test func `a download that is read slowly does not outlast the certificate`() throws {
        let large = try scratch.sparseFile("large", size: 256 << 20)
        let server = try server(large)
        let brief = try briefCertificate("alice", seconds: 15)
        let curl = try RunningProgram([
            "curl", "-sS", "--max-time", "120", "--limit-rate", "1K", "-o", "/dev/null", "--cacert",
            authority.path, "--cert", brief.path, "--key", brief.key,
            server.url("/hashes?filename=\(large)&method=md5&block_size=512"),
        ])
        // The session holds the device as long as its list of digests is being sent.
        while curl.isRunning, try !server.log().contains("not allowed any more") { usleep(5_000) }
        let log = try server.log()
        #expect(log.contains("session begins") && log.contains("not allowed any more"), "\(log)")
    }

    @Test func `an authority that was removed takes its clients along`() throws {
        let other = try TestAuthority("other", in: scratch)
        try must("sh", "-c", "cat \(other.path) >> \(authorities)")
        let server = try server(image)
        let (good, bad) = (try authority.certificate("alice"), try other.certificate("bob"))
        func pull(
            _ certificate: TestAuthority.Certificate, _ name: String, _ rate: String
        ) throws -> RunningProgram {
            try RunningProgram([
                program, server.url(image), scratch.file(name), "--cacert", authority.path,
                "--cert", certificate.path, "--key", certificate.key, "--bwlimit", rate,
            ])
        }
        let (alice, bob) = (try pull(good, "a", "500K"), try pull(bad, "b", "250K"))
        while bob.isRunning,
            try server.log().components(separatedBy: "session begins").count < 3
        {
            usleep(5_000)
        }
        try must("cp", authority.path, authorities)
        try reload(server)
        let (first, second) = (try alice.wait(), try bob.wait())
        #expect(first.status == 0, "\(first)")
        #expect(second.status == 5, "\(second)")
        let copy = try Data(contentsOf: URL(fileURLWithPath: scratch.file("a")))
        #expect(try copy == Data(contentsOf: URL(fileURLWithPath: image)))
    }

    @Test func `a certificate whose line was removed is refused, its running push included`() throws
    {
        let tokens = scratch.file("tokens")
        func write(_ text: String) throws {
            try must("sh", "-c", "umask 077; printf '\(text)' > \(tokens)")
        }
        try write("alice -\\nbob -\\n")
        let target = try scratch.sparseFile("target", size: 4 << 20)
        let server = try server(target + ":rw", ["--token-file", tokens])
        let alice = try authority.certificate("alice")
        let run = try RunningProgram([
            program, image, server.url(target), "--cacert", authority.path, "--cert", alice.path,
            "--key", alice.key, "--bwlimit", "250K",
        ])
        while run.isRunning, try !server.log().contains("session begins") { usleep(5_000) }
        try write("bob -\\n")
        try reload(server)
        let result = try run.wait()
        #expect(result.status == 5, "\(result)")
        #expect(try isLogged("not allowed any more", by: server))
        let bob = try authority.certificate("bob")
        let next = try blkferry(
            image, server.url(target), "--cacert", authority.path, "--cert", bob.path, "--key",
            bob.key)
        #expect(next.status == 0, "\(next)")
    }
}
