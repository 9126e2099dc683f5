// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import TestSupport
import Testing

/// Connections whose client ends them.
@Suite(.blocking, .timeLimit(.minutes(60))) struct ConnectionEndTests {
    private let rig: ServerRig

    init() throws { rig = try ServerRig() }

    @Test(arguments: [
        "", "GET /v1 HTTP/1.1\r\nHos", "GET /v1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /v1/sessions/x/write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
            + "Content-Type: application/x-blkferry\r\n\r\nhalf of it",
    ])
    func `a client that ends its side anywhere ends the connection on the server as well`(
        sent: String
    ) throws {
        let connection = try StreamSocket(port: rig.port)
        connection.limitWaiting(to: 30)
        if !sent.isEmpty { try connection.send(sent) }
        connection.endSending()
        var answer: [UInt8] = []
        while let more = try? connection.receive(), !more.isEmpty { answer += more }
        // Sooner than the server's patience ends.
        #expect(becomesTrue(within: 30) { rig.server.connectionCount == 0 })
        if sent.hasSuffix("a\r\n\r\n") {
            #expect(answer.starts(with: Array("HTTP/1.1 200".utf8)), "it is answered all the same")
        }
    }
}
