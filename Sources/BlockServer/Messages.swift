// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import NIOCore
internal import NIOHTTP1
internal import WireProtocol

/// A request whose head was accepted and whose body, if any, is complete.
struct Request: Sendable {
    var route: Route
    var method: HTTPMethod
    var headers: HTTPHeaders
    var body: RequestBody?
    var peer: String
    /// The client's, without a port.
    var address: String
    var grant: Grant

    var bytes: UnsafeRawBufferPointer {
        body?.bytes ?? UnsafeRawBufferPointer(start: nil, count: 0)
    }
}

/// What a request is answered with.
struct Response: Sendable {
    enum Body: Sendable {
        case bytes(ByteBuffer)
        /// What is made while it is sent.
        case stream(any BodySource)
    }
    var status: HTTPResponseStatus
    var headers = HTTPHeaders()
    var body = Body.bytes(ByteBuffer())
    /// Of an error.
    private(set) var problem: Problem?

    init(_ status: HTTPResponseStatus) { self.status = status }

    init(_ status: HTTPResponseStatus, frames: ByteBuffer) {
        self.status = status
        body = .bytes(frames)
    }

    init(_ status: HTTPResponseStatus, json: some Encodable) {
        self.status = status
        headers.add(name: "Content-Type", value: MediaType.json)
        body = .bytes(ByteBuffer(bytes: WireJSON.encode(json)))
    }

    init(_ problem: Problem) {
        self.problem = problem
        status = HTTPResponseStatus(statusCode: problem.status)
        headers.add(name: "Content-Type", value: MediaType.problem)
        if problem.status == 503 { headers.add(name: "Retry-After", value: "1") }
        body = .bytes(ByteBuffer(bytes: WireJSON.encode(problem)))
    }
}

extension Response {
    /// Characters of a reason in a status line.
    private static let longestReason = 500

    /// Puts the problem's reason where pdiffcopy's client shows it: it prints the status line of an
    /// error, and nothing of its body.
    mutating func tellReasonInStatusLine() {
        guard let problem else { return }
        var reason = problem.object.map { "\($0): " } ?? ""
        reason += problem.detail
        if let advice = problem.pdiffcopyAdvice { reason += ". \(advice)" }
        let line = reason.unicodeScalars.prefix(Self.longestReason).map { scalar in
            (0x20..<0x7F).contains(scalar.value) ? Character(scalar) : "?"
        }
        status = .custom(code: UInt(problem.status), reasonPhrase: String(line))
    }
}

extension Problem {
    /// What a user of pdiffcopy can do, who has none of our options.
    fileprivate var pdiffcopyAdvice: String? {
        if kind == .unauthorized { return "pdiffcopy cannot show one, blkferry can." }
        switch cause.flatMap({ Refusal.Cause(rawValue: $0) }) {
        case .signature:
            return "If that may be lost, end the file name with \(PdiffcopyService.overwriteMark)."
        case .size: return nil
        default: return advice
        }
    }
}

/// The bytes of an answer, made piece by piece as the client takes them.
///
/// One piece is made at a time, each on some thread. When the client goes away in the middle, the
/// source is forgotten.
protocol BodySource: AnyObject, Sendable {
    /// Bytes of all pieces together.
    var length: Int { get }

    /// Whether it goes out in chunks instead of under its length.
    ///
    /// Not every client finds out that an answer is shorter than the length it has told; of chunks
    /// the last one is missed by all.
    var isChunked: Bool { get }

    /// Whether all pieces are made.
    var isAtEnd: Bool { get }

    /// Makes the next piece; not at the end.
    ///
    /// - Parameter memory: of the thread, at least `Limits.payload`.
    /// - Returns: some bytes.
    /// - Throws: the device's error, or libcrypto's: the answer is broken off.
    func next(_ memory: UnsafeMutableRawBufferPointer) throws(Problem) -> ByteBuffer
}
