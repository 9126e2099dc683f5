// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// What the proxy needs to know of a request's head.
struct RequestHead: Equatable {
    var method: String
    /// Bytes of the body; `nil` when a transfer coding says where it ends (RFC 9112, 6).
    var contentLength: Int?
    /// The client waits for an interim answer before it sends the body (RFC 9110, 10.1.1).
    var expectsContinue = false
    /// The client takes no further request to this connection.
    var isLast = false

    /// Reads a head.
    ///
    /// It is `nil` when this is no HTTP/1 request.
    ///
    /// - Parameter bytes: all of it, the empty line included.
    init?(_ bytes: ArraySlice<UInt8>) {
        let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\r\n")
        guard let words = lines.first?.split(separator: " "), words.count == 3,
            words[2].hasPrefix("HTTP/1.")
        else { return nil }
        method = String(words[0])
        contentLength = 0
        isLast = words[2] == "HTTP/1.0"
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":") else { return nil }
            note(
                line[..<colon].lowercased(),
                line[line.index(after: colon)...].drop { $0 == " " }.lowercased())
        }
    }

    private mutating func note(_ name: String, _ value: String) {
        switch name {
        case "content-length": if contentLength != nil { contentLength = Int(value) }
        case "transfer-encoding": contentLength = nil
        case "expect": expectsContinue = value.hasPrefix("100-")
        case "connection": isLast = isLast || value.contains("close")
        default: break
        }
    }
}

/// Finds where the requests of a connection begin and end.
///
/// A head is held back until it is complete, so that the test decides about a whole head.
/// What does not look like HTTP/1, or has a body without Content-Length, passes from there on to
/// the end of the connection.
struct RequestScanner {
    /// What to do with a part of what was scanned.
    enum Step: Equatable {
        case forward(ArraySlice<UInt8>)
        /// The head of a request that is kept has come, and its client waits for leave to go on.
        case askForBody
        /// A request that is kept has come completely.
        case answer(RequestHead)
    }

    private enum State {
        case head
        /// Bytes that are left of a body, and the head where the request is kept.
        case body(left: Int, kept: RequestHead?)
        case opaque
    }

    /// More than any head of ours; what is longer is none.
    private static let longestHead = 64 << 10

    private static let methods = [
        "GET ", "HEAD ", "PUT ", "POST ", "PATCH ", "DELETE ", "OPTIONS ", "TRACE ",
    ].map { Array($0.utf8) }

    private var state = State.head
    private var held: [UInt8] = []

    /// Takes what came next.
    ///
    /// - Parameters:
    ///   - bytes: what came.
    ///   - isKept: asked once for each request, whether it is kept from the server.
    /// - Returns: what to do, in order.
    mutating func scan(_ bytes: [UInt8], isKept: (RequestHead) -> Bool) -> [Step] {
        var rest = (held.isEmpty ? bytes : held + bytes)[...]
        held = []
        var steps: [Step] = []
        while !rest.isEmpty {
            switch state {
            case .opaque:
                steps.append(.forward(rest))
                return steps
            case .body(let left, let kept):
                let part = rest.prefix(left)
                rest = rest.dropFirst(left)
                if kept == nil { steps.append(.forward(part)) }
                state = .body(left: left - part.count, kept: kept)
            case .head:
                guard scanHead(&rest, &steps, isKept) else { return steps }
            }
            finishBody(&steps)
        }
        return steps
    }

    /// What is held of a head that will never be complete.
    mutating func takeHeld() -> [UInt8] {
        defer { held = [] }
        return held
    }

    /// - Returns: whether there is anything more to do now.
    private mutating func scanHead(
        _ rest: inout ArraySlice<UInt8>, _ steps: inout [Step], _ isKept: (RequestHead) -> Bool
    ) -> Bool {
        guard Self.mayBeHead(rest) else {
            state = .opaque
            return true
        }
        guard let end = Self.endOfHead(rest) else {
            if rest.count < Self.longestHead {
                held = Array(rest)
                return false
            }
            state = .opaque
            return true
        }
        guard let head = RequestHead(rest[..<end]) else {
            state = .opaque
            return true
        }
        if isKept(head) {
            if head.expectsContinue { steps.append(.askForBody) }
            state = .body(left: head.contentLength ?? 0, kept: head)
        } else {
            steps.append(.forward(rest[..<end]))
            state = head.contentLength.map { .body(left: $0, kept: nil) } ?? .opaque
        }
        rest = rest[end...]
        return true
    }

    private mutating func finishBody(_ steps: inout [Step]) {
        guard case .body(0, let kept) = state else { return }
        if let kept { steps.append(.answer(kept)) }
        state = .head
    }

    private static func mayBeHead(_ bytes: ArraySlice<UInt8>) -> Bool {
        methods.contains { method in
            zip(method, bytes).allSatisfy { $0 == $1 }
        }
    }

    private static func endOfHead(_ bytes: ArraySlice<UInt8>) -> Int? {
        let bytes = bytes.prefix(longestHead)
        var matched = 0
        for index in bytes.indices {
            switch bytes[index] {
            case 10 where matched % 2 == 1: matched += 1
            case 13 where matched % 2 == 0: matched += 1
            case 13: matched = 1
            default: matched = 0
            }
            if matched == 4 { return index + 1 }
        }
        return nil
    }
}
