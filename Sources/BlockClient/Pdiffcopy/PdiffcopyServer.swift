// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
package import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// A server of pdiffcopy 1.0, and one of its files.
///
/// pdiffcopy has no sessions, no access control and no flush. The client never sends it a token.
package final class PdiffcopyServer: Sendable {
    let name: String
    let path: String
    /// Whether the user gave a token, which is not sent.
    let hasToken: Bool
    let isCancelled: @Sendable () -> Bool
    let transport: HTTPTransport

    private init(_ server: RemoteServer, path: String, hasToken: Bool) {
        name = server.location.text
        self.path = path
        self.hasToken = hasToken
        isCancelled = server.options.isCancelled
        transport = server.transport
    }

    /// Detects a pdiffcopy server; `nil` if the server must be addressed as a blkferry server.
    ///
    /// No probe carries the token. pdiffcopy has no page with its name. It is recognized because it
    /// reports the size of the root directory.
    ///
    /// - Throws: also if the server is neither.
    package static func find(_ server: RemoteServer) throws(IOError) -> PdiffcopyServer? {
        let location = server.location
        // ssh starts a blkferry server.
        guard location.scheme != .ssh, let path = location.selector else { return nil }
        let body = ResponseBody(limit: Limits.answer)
        var request = HTTPRequest(.get, Route.info.path)
        request.isAnonymous = true
        let response = try server.transport.send(request, "open", into: body)
        guard response.status == 404, !response.contentType.hasPrefix(MediaType.problem) else {
            return nil
        }
        var options = server.options
        options.token = nil
        // pdiffcopy answers 500 to every error, so a retry would not help.
        options.repeats500 = false
        let anonymous = try RemoteServer(location, options)
        let hasToken = server.options.token != nil
        let root = PdiffcopyServer(anonymous, path: "/", hasToken: hasToken)
        guard (try? root.size()).flatMap({ $0 }) != nil else {
            throw server.noBlkferry("open", response)
        }
        guard path.begins(with: "/") else {
            throw .network(
                location.text, "open",
                reason: "a pdiffcopy server knows files by their paths alone")
        }
        return PdiffcopyServer(anonymous, path: path, hasToken: hasToken)
    }
}

extension PdiffcopyServer {
    private struct Info: Decodable {
        var size: Int
    }

    /// Bytes beyond any file's size, and far enough from `Int.max` that rounding up cannot
    /// overflow.
    private static let maximumSize = 1 << 60

    /// The file's size in bytes, 0 for a device; `nil` if the file does not exist.
    func size() throws(IOError) -> Int? {
        let body = ResponseBody(limit: Limits.json)
        let response = try transport.send(HTTPRequest(.get, url("info")), "get status", into: body)
        if response.status == 404 { return nil }
        try require(response, "get status", MediaType.json)
        guard
            let info = try? WireJSON.decode(Info.self, from: body.bytes),
            (0...Self.maximumSize).contains(info.size)
        else {
            throw .network(
                name, "get status", reason: "the server's answer cannot be understood")
        }
        return info.size
    }

    /// Whether a file with a reported size of 0 has a byte, which means that it is a device.
    func holdsBytes() throws(IOError) -> Bool {
        let body = ResponseBody(limit: 1)
        let query = [("offset", "0"), ("size", "1")]
        let request = HTTPRequest(.get, url("blocks", query), isRetried: false)
        try require(try transport.send(request, "read", into: body), "read", MediaType.bytes)
        return body.bytes.count > 0
    }

    /// Requests the digests of all blocks of `block` bytes.
    ///
    /// - Parameter concurrency: hashing processes on the server; `nil` for the server's default.
    func digests(
        block: Int, method: DigestMethod, concurrency: Int?, into sink: any ResponseSink
    ) throws(IOError) {
        var query = [("block_size", "\(block)"), ("method", Self.name(of: method))]
        if let concurrency { query.append(("concurrency", "\(concurrency)")) }
        var request = HTTPRequest(.get, url("hashes", query))
        // A line for each block arrives as fast as the server reads, assumed to be 64 KiB/s at
        // least.
        let line = Double(2 * method.byteCount)
        request.leastRate = min(request.leastRate, line * Double(64 << 10) / Double(block))
        let response = try transport.send(request, "compare", into: sink)
        try require(response, "compare", "text/plain")
    }

    /// Reads a range of the file; throws also unless the body gets exactly its bytes.
    func read(
        _ range: ByteRange, into body: ResponseBody, mayWait: @escaping () -> Bool = { false }
    ) throws(IOError) {
        let operation = "read at \(range)"
        let query = [("offset", "\(range.offset)"), ("size", "\(range.length)")]
        var request = HTTPRequest(.get, url("blocks", query))
        request.mayWait = mayWait
        let response = try transport.send(request, operation, into: body)
        try require(response, operation, MediaType.bytes)
        guard body.bytes.count == range.length else {
            throw .network(
                name, operation, reason: "the server has sent \(body.bytes.count) bytes")
        }
    }

    func write(
        _ parts: [UnsafeRawBufferPointer], at offset: Int, mayWait: @escaping () -> Bool
    ) throws(IOError) {
        var request = HTTPRequest(
            .post, url("blocks", [("offset", "\(offset)")]), contentType: MediaType.bytes)
        request.parts = parts
        request.mayWait = mayWait
        let range = ByteRange(offset: offset, length: request.bodyCount)
        let operation = "write at \(range)"
        let body = ResponseBody(limit: Limits.json)
        try require(try transport.send(request, operation, into: body), operation)
        try requireNothing(in: body, operation)
    }

    /// Sets the file's size in bytes, and creates the file if it does not exist.
    func resize(to size: Int) throws(IOError) {
        let operation = "resize to \(size) bytes"
        let body = ResponseBody(limit: Limits.json)
        let request = HTTPRequest(.post, url("resize", [("size", "\(size)")]))
        try require(try transport.send(request, operation, into: body), operation)
        try requireNothing(in: body, operation)
        guard try self.size() == size else {
            throw .network(name, operation, reason: "it has another size afterwards")
        }
    }

    private func url(_ endpoint: String, _ query: [(String, String)] = []) -> String {
        "/\(endpoint)?"
            + ([("filename", path)] + query).map { "\($0)=\(percentEncoded($1))" }
            .joined(separator: "&")
    }

    /// Throws unless an answer is a success.
    ///
    /// - Parameter type: of the body; `nil` for any, since Flask gives an empty body a type.
    private func require(
        _ response: HTTPResponse, _ operation: String, _ type: String? = nil
    ) throws(IOError) {
        guard response.status == 200 else {
            throw .network(
                name, operation,
                reason: "the pdiffcopy server answers HTTP \(response.status)\(transport.way)",
                advice: response.status == 500 ? "The server's log says why." : nil)
        }
        guard type.map({ response.isOf($0) }) ?? true else { throw notPdiffcopy(operation) }
    }

    /// Throws if the body is not empty, because another server between may have answered.
    private func requireNothing(in body: ResponseBody, _ operation: String) throws(IOError) {
        guard body.bytes.isEmpty else { throw notPdiffcopy(operation) }
    }

    private func notPdiffcopy(_ operation: String) -> IOError {
        .network(name, operation, reason: "no pdiffcopy server answers there")
    }

    private static func name(of method: DigestMethod) -> String {
        hashlibNames[method.name] ?? method.name
    }

    /// Names in Python's hashlib since 3.6, by blkferry's names.
    ///
    /// Other digests depend on the server's libcrypto. If one is missing there, pdiffcopy does not
    /// answer, and leaves processes behind.
    static let hashlibNames = [
        "md5": "md5", "sha1": "sha1", "sha224": "sha224", "sha256": "sha256", "sha384": "sha384",
        "sha512": "sha512", "sha3-224": "sha3_224", "sha3-256": "sha3_256",
        "sha3-384": "sha3_384", "sha3-512": "sha3_512", "blake2b512": "blake2b",
        "blake2s256": "blake2s",
    ]
}
