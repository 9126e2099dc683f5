// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import TestSupport
import Testing

/// Two hosts with a cable between them.
@Suite(
    .enabled(if: NetworkNamespaces.isAvailable, "network namespaces need root and ip(8)"),
    .blocking, .timeLimit(.minutes(60)))
struct NetworkNamespaceTests {
    /// A connection over the cable, made by Python: the first host serves, the second one asks.
    private static let client = """
        import socket, sys, time
        for attempt in range(6000):
            try:
                peer = socket.create_connection((sys.argv[1], 7777))
                break
            except ConnectionRefusedError:
                time.sleep(0.01)
        print(peer.recv(100).decode())
        """
    private static let server = """
        import socket, sys
        family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
        server = socket.create_server((sys.argv[1], 7777), family=family)
        server.accept()[0].sendall(b"ahoy")
        """

    @Test(arguments: [4, 6])
    func `a program on one host reaches the other host`(version: Int) throws {
        let pair = try NetworkNamespaces()
        let there = version == 4 ? pair.first.ipv4 : pair.first.ipv6
        let server = try RunningProgram(
            pair.run(in: pair.first) + ["python3", "-c", Self.server, there])
        let answer = try must(pair.run(in: pair.second) + ["python3", "-c", Self.client, there])
        #expect(answer == "ahoy\n")
        #expect(try server.wait().status == 0)
    }

    @Test func `loopback is up on both hosts`() throws {
        let pair = try NetworkNamespaces()
        for host in [pair.first, pair.second] {
            #expect(try must(host.prefix + ["ip", "-brief", "link", "show", "lo"]).contains("UP"))
        }
    }

    @Test func `pairs of hosts do not meet, and are removed completely`() throws {
        var names: [String] = []
        do {
            let pairs = [try NetworkNamespaces(), try NetworkNamespaces()]
            names = pairs.flatMap { [$0.first.name, $0.second.name] }
            #expect(Set(names).count == 4)
            let listed = try must("ip", "netns", "list")
            for name in names { #expect(listed.contains(name)) }
            pairs[0].close()
            pairs[0].close()
            #expect(try !must("ip", "netns", "list").contains(names[0]))
        }
        let listed = try must("ip", "netns", "list")
        for name in names { #expect(!listed.contains(name)) }
    }
}
