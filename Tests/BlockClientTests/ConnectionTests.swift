// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import Glibc
import LinuxIO
import TestSupport
import Testing

/// Connections that do not come about, or must not be trusted.
@Suite(.blocking, .timeLimit(.minutes(60))) struct ConnectionTests {
    @Test func `a certificate that nobody vouches for is an error without a retry`() throws {
        let scratch = try ScratchDirectory()
        try must(
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
            "/CN=localhost", "-keyout", scratch.file("key"), "-out", scratch.file("cert"))
        let server = try RunningProgram([
            "openssl", "s_server", "-accept", "127.0.0.1:0", "-key", scratch.file("key"),
            "-cert", scratch.file("cert"), "-www",
        ])
        var found: Substring?
        while found == nil, server.isRunning {
            pauseBriefly()
            found = try server.outputSoFar()
                .firstMatch(of: /ACCEPT 127\.0\.0\.1:([0-9]+)\n/)?.output.1
        }
        let port = try #require(found)
        let notes = Notes()
        let transport = try makeTransport("https://127.0.0.1:\(port)", notes: notes)
        let error = failure { () throws(IOError) in try transport.call() }
        #expect(error?.kind == .unauthorized)
        #expect(error?.reason.contains("certificate") == true, "\(error?.reason ?? "no error")")
        #expect(notes.all.isEmpty)
    }

    @Test func `a connection that takes too long is a timeout`() throws {
        // A listener whose queue is full leaves further ones without an answer.
        let listener = ListeningSocket(backlog: 0)
        let fillers = (0..<4).map { _ in listener.connectWithoutWaiting() }
        defer { for filler in fillers { close(filler) } }
        usleep(100_000)
        let transport = try makeTransport("http://127.0.0.1:\(listener.port)") {
            $0.connectSeconds = 0.5
        }
        // The silence that a request allows has nothing to do with it.
        let time = seconds {
            let error = failure { () throws(IOError) in try transport.call(silence: 0.1) }
            #expect(error?.reason == "no connection within 0.5 s")
        }
        #expect(time >= 0.45)
    }
}

/// A socket on the loopback address that listens and accepts nothing.
private final class ListeningSocket {
    let port: UInt16
    private let descriptor: Int32
    private var address = sockaddr_in()

    init(backlog: Int32) {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let socket = descriptor
        withAddress(&address) { pointer, size in
            var size = size
            bind(socket, pointer, size)
            listen(socket, backlog)
            getsockname(socket, pointer, &size)
        }
        port = UInt16(bigEndian: address.sin_port)
    }

    deinit { close(descriptor) }

    func connectWithoutWaiting() -> Int32 {
        let client = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0)
        withAddress(&address) { pointer, size in _ = connect(client, pointer, size) }
        return client
    }
}

private func withAddress(
    _ address: inout sockaddr_in, _ body: (UnsafeMutablePointer<sockaddr>, socklen_t) -> Void
) {
    withUnsafeMutablePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
    }
}
