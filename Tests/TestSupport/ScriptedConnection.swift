// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import SystemPackage

/// A message of HTTP/1.1 with Content-Length, as tests read it.
package struct HTTPMessage: Sendable {
    /// The start line and the headers, one a line, with the empty line at the end.
    package let head: String
    package let body: [UInt8]

    package var byteCount: Int { head.utf8.count + body.count }
    /// The second word of an answer's first line.
    package var status: String { String(head.split(separator: " ")[1]) }
    package var text: String { String(decoding: body, as: UTF8.self) }
}

extension HTTPMessage {
    /// Receives a message; `nil` if the connection ends before or within it.
    package init?(from stream: StreamSocket) throws(Errno) {
        guard let head = try Self.receiveHead(from: stream),
            let body = try Self.receiveBody(of: head, from: stream)
        else { return nil }
        self.init(head: head, body: body)
    }

    /// Receives byte by byte, so that nothing of the body is lost.
    static func receiveHead(from stream: StreamSocket) throws(Errno) -> String? {
        var head: [UInt8] = []
        while !head.suffix(4).elementsEqual("\r\n\r\n".utf8) {
            let next = try stream.receive(limit: 1)
            if next.isEmpty { return nil }
            head += next
        }
        return String(decoding: head, as: UTF8.self)
    }

    static func receiveBody(of head: String, from stream: StreamSocket) throws(Errno) -> [UInt8]? {
        var length = 0
        for line in head.split(separator: "\r\n") {
            let words = line.split(separator: " ")
            if words.count > 1, words[0].lowercased() == "content-length:" {
                length = Int(words[1]) ?? 0
            }
        }
        let body = try stream.receive(count: length)
        return body.count == length ? body : nil
    }
}

/// A connection to a scripted server, on which errors are the end of the connection.
package struct ScriptedConnection: Sendable {
    package let stream: StreamSocket
    private let server: ScriptedServerState

    init(_ stream: StreamSocket, _ server: ScriptedServerState) {
        self.stream = stream
        self.server = server
    }

    /// Reads a request's head, and nothing of its body.
    package func readHead() -> String? {
        guard let head = try? HTTPMessage.receiveHead(from: stream) else { return nil }
        server.countRequest()
        return head
    }

    /// Reads a request; `nil` at the end of the connection.
    package func readRequest() -> HTTPMessage? {
        guard let head = readHead(),
            let body = try? HTTPMessage.receiveBody(of: head, from: stream)
        else { return nil }
        return HTTPMessage(head: head, body: body)
    }

    /// Reads once, at most so many bytes; none at the end.
    package func read(_ limit: Int) -> [UInt8] {
        (try? stream.receive(limit: min(limit, 1 << 20))) ?? []
    }

    /// Writes everything; `false` if the other end is gone.
    @discardableResult
    package func write(_ bytes: [UInt8]) -> Bool { (try? stream.send(bytes)) != nil }

    @discardableResult
    package func write(_ text: String) -> Bool { write([UInt8](text.utf8)) }

    package func answer(_ status: Int = 200, type: String = "text/plain", _ body: [UInt8] = []) {
        write(Self.head(status, type: type, length: body.count) + body)
    }

    package static func head(
        _ status: Int = 200, type: String = "text/plain", length: Int
    ) -> [UInt8] {
        let text =
            "HTTP/1.1 \(status) X\r\nContent-Type: \(type)\r\nContent-Length: \(length)\r\n\r\n"
        return [UInt8](text.utf8)
    }

    /// Answers every request of the connection.
    package func serve(_ answer: (HTTPMessage) -> [UInt8]) {
        while let request = readRequest() {
            let body = answer(request)
            self.answer(200, body)
        }
    }

    /// Makes the end of the script a reset of the connection.
    package func reset() { stream.resetOnClose() }

    /// Ends the connection in both directions; what was written still arrives.
    package func close() { stream.interrupt() }

    /// Does nothing until the other end is gone.
    package func waitForEnd() { while !read(1).isEmpty {} }

    /// Waits for the end of the connection without taking a byte from it.
    package func waitWithoutReading() { stream.waitWithoutReading() }
}
