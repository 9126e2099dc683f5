// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import NIOCore
internal import NIOHTTP1
internal import WireProtocol

/// A request with an accepted head and a complete body, or a complete piece of it.
struct Request: Sendable {
    var route: any ServedRoute
    var method: HTTPMethod
    var headers: HTTPHeaders
    var body: RequestBody?
    var peer: Peer
    var grant: Grant
    /// Bytes of the whole body, which may come in pieces.
    var length = 0
    var before = 0
    /// Why no session for writing is opened any more; `nil` if one may be.
    ///
    /// Once there is a reason, there always is one: the client has gone, or the server ends.
    var reasonToGiveUp: @Sendable () -> Problem? = { nil }

    var isLast: Bool { before + bytes.count >= length }

    var bytes: UnsafeRawBufferPointer {
        body?.bytes ?? UnsafeRawBufferPointer(start: nil, count: 0)
    }
}

struct Peer: Hashable, Sendable {
    /// Name in the log: the address with its port.
    var name: String
    var address: String
    /// The name in the client's certificate; `nil` if the server asked for none.
    var certified: String?
    /// Seconds since 1970 after which the client's certificate is invalid.
    var certificateEnd: Int?
    var credential: [UInt8]?
    /// User of the client's process, on a unix socket.
    var user: UInt32?

    /// The network whose addresses count as one client; `nil` without an address.
    var network: String? { address == "local" ? nil : AuthThrottle.network(of: address) }
}

struct Response: Sendable {
    enum Body: Sendable {
        case bytes(ByteBuffer)
        /// Made while it is sent.
        case stream(any BodySource)
    }
    enum TokenFault: Sendable {
        case missing
        case wrong
    }
    var status: HTTPResponseStatus
    var headers = HTTPHeaders()
    var body = Body.bytes(ByteBuffer())
    private(set) var problem: Problem?
    /// Why the request's token does not admit it, where the log has to know that.
    var tokenFault: TokenFault?

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
        if [429, 503].contains(problem.status) { headers.add(name: "Retry-After", value: "1") }
        body = .bytes(ByteBuffer(bytes: WireJSON.encode(problem)))
    }

    init(
        _ kind: Problem.Kind, status: Int, _ title: String, detail: String, advice: String? = nil
    ) {
        self.init(Problem(kind, status: status, title, detail: detail, advice: advice))
    }
}

/// The body of a response, made piece by piece as the client takes it.
///
/// One piece is made at a time, on any thread of the queue. If the client disconnects, the source
/// is discarded.
protocol BodySource: AnyObject, Sendable {
    var length: Int { get }

    /// Whether the body is sent in chunks, without a `Content-Length`.
    ///
    /// Not every client notices a short body, but every client notices a missing last chunk.
    var isChunked: Bool { get }

    var isAtEnd: Bool { get }

    /// What allowed the download; the response is aborted once it is not allowed any more.
    var permission: Permission { get }

    /// Makes the next piece, which is not empty; must not be called at the end.
    ///
    /// - Parameter memory: of the thread, at least `Limits.payload`.
    func next(_ memory: UnsafeMutableRawBufferPointer) throws(Problem) -> ByteBuffer
}
