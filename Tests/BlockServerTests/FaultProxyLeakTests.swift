// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Glibc
import TestSupport
import Testing

/// What a proxy leaves behind.
@Suite(.blocking, .timeLimit(.minutes(60))) struct FaultProxyLeakTests {
    // In a process of its own: other tests open and close files all the time.
    @Test func `the proxy leaks no descriptor, however the connections ended`() async {
        await #expect(processExitsWith: .success) {
            try useAndForget()  // what the libraries open once is open now
            let before = try openDescriptors()
            for _ in 0..<5 { try useAndForget() }
            let after = try openDescriptors()
            precondition(before == after, "\(before) descriptors, then \(after)")
        }
    }
}

/// A proxy with connections that are idle, over, cut, delayed, refused and lingering.
private func useAndForget() throws {
    let server = ScriptedServer.echo()
    let proxy = try FaultProxy(upstreamPort: server.port)
    let idle = try StreamSocket(port: proxy.port)
    for _ in 0..<4 {
        let connection = try StreamSocket(port: proxy.port)
        try connection.send("ping")
        let echoed = try connection.receive(count: 4)
        precondition(echoed.count == 4)
    }
    proxy.cutEvery = 1...1
    for _ in 0..<8 {
        let connection = try StreamSocket(port: proxy.port)
        try connection.send("ping")
        _ = try? connection.receive()
    }
    proxy.cutEvery = nil
    proxy.isRefusing = true
    _ = try StreamSocket(port: proxy.port).receive()
    proxy.isRefusing = false
    proxy.delay = 60
    let late = try StreamSocket(port: proxy.port)
    try late.send("ping")
    _ = (idle, late)
}

private func openDescriptors() throws -> Int {
    let directory = try #require(opendir("/proc/self/fd"))
    defer { closedir(directory) }
    var count = 0
    while readdir(directory) != nil { count += 1 }
    return count
}
