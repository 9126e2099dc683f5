// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import LinuxIO
import Synchronization
import SystemPackage
import TestSupport

/// A server on 127.0.0.1 that does with each connection what a test says; it ends with this object.
final class ScriptedServer: Sendable {
    typealias Script = @Sendable (StreamSocket) throws(Errno) -> Void

    let port: Int
    private let state: State
    private let thread: Mutex<Threads.Running?>

    /// What the server shares with its threads.
    private final class State: Sendable {
        let connections = Mutex<[StreamSocket]>([])
        let isClosing = Atomic<Bool>(false)
    }

    /// Starts a server.
    ///
    /// - Parameter script: what is done with each connection, in a thread of its own; the
    ///   connection is closed afterwards, also when it throws.
    /// - Throws: what the system says.
    init(_ script: @escaping Script) throws {
        let listener = try Loopback.listen()
        port = try Loopback.port(of: listener)
        let state = State()
        self.state = state
        let shared = Box(listener)
        thread = Mutex(
            Threads.start(count: 1, orInline: false) { _ in
                guard let listener = shared.value.withLock({ $0.take() }) else { return }
                Self.serve(listener, state, script)
            })
    }

    deinit { close() }

    /// Interrupts all connections and waits until all threads have ended.
    func close() {
        guard let running = thread.withLock({ $0.take() }) else { return }
        state.isClosing.store(true, ordering: .releasing)
        // Wakes the thread that accepts.
        _ = try? StreamSocket(port: port)
        state.connections.withLock { for connection in $0 { connection.interrupt() } }
        running.wait()
        state.connections.withLock { $0 = [] }
    }

    private static func serve(
        _ listener: borrowing OwnedDescriptor, _ state: State, _ script: @escaping Script
    ) {
        var threads: [Worker] = []
        while let socket = try? Loopback.accept(listener) {
            let connection = StreamSocket(socket)
            if state.isClosing.load(ordering: .acquiring) { break }
            state.connections.withLock { $0.append(connection) }
            threads.append(
                Worker(
                    Threads.start(count: 1) { _ in
                        try? script(connection)
                        state.connections.withLock { $0.removeAll { $0 === connection } }
                    }))
        }
        state.connections.withLock { for connection in $0 { connection.interrupt() } }
        for thread in threads { thread.wait() }
    }

    /// Takes the listening socket into its thread.
    private final class Box: Sendable {
        let value: Mutex<OwnedDescriptor?>
        init(_ listener: consuming OwnedDescriptor) { value = Mutex(consume listener) }
    }

    private final class Worker {
        private var running: Threads.Running?
        init(_ running: consuming Threads.Running) { self.running = consume running }
        func wait() { running.take()?.wait() }
    }
}

extension ScriptedServer {
    /// Sends back whatever comes.
    static let echo: Script = { (connection) throws(Errno) in
        while true {
            let bytes = try connection.receive()
            if bytes.isEmpty { return }
            try connection.send(bytes)
        }
    }

    /// Answers each request with a body that tells how long the request's was.
    static let http: Script = { (connection) throws(Errno) in
        while let request = try HTTPMessage(from: connection) {
            let body = "served \(request.body.count)"
            try connection.send(
                "HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
        }
    }
}

/// A message of HTTP/1.1 with Content-Length, as tests read it.
struct HTTPMessage {
    /// The start line and the headers, one a line.
    var head: String
    var body: [UInt8] = []

    /// Receives one; `nil` at the end of the connection.
    init?(from connection: StreamSocket) throws(Errno) {
        head = ""
        while !head.hasSuffix("\r\n\r\n") {
            let next = try connection.receive(limit: 1)
            if next.isEmpty { return nil }
            head += String(decoding: next, as: UTF8.self)
        }
        for line in head.split(separator: "\r\n") {
            let words = line.split(separator: " ")
            if words[0].lowercased() == "content-length:", let count = Int(words[1]) {
                body = try connection.receive(count: count)
            }
        }
    }

    /// The second word of an answer's first line.
    var status: String { String(head.split(separator: " ")[1]) }
    var text: String { String(decoding: body, as: UTF8.self) }
}
