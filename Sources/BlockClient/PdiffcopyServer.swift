// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import DeviceProbe
internal import Digests
internal import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// A server of pdiffcopy 1.0, and one of its files.
///
/// It has no sessions, no access control and no flush. It is never sent a token.
package final class PdiffcopyServer: Sendable {
    /// The URL as the user wrote it.
    let name: String
    /// The file's path over there.
    let path: String
    /// Whether the user gave a token, which stays at home.
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

    /// Finds out whether it is pdiffcopy that answers.
    ///
    /// Nothing of what is asked for that shows who asks. pdiffcopy has no page that tells its name;
    /// what gives it away is that it knows the size of the root directory.
    ///
    /// - Parameter server: what the user's URL names.
    /// - Returns: `nil` where the server has to be spoken to as one of ours.
    /// - Throws: errors of the network; where it is neither.
    package static func find(_ server: RemoteServer) throws(ProbeError) -> PdiffcopyServer? {
        let location = server.location
        // ssh starts one of ours.
        guard location.scheme != .ssh, let path = location.selector else { return nil }
        let body = ResponseBody(limit: Limits.answer)
        var request = HTTPRequest(.get, Route.info.path)
        request.isAnonymous = true
        let response: HTTPResponse
        do throws(HTTPError) { response = try server.transport.send(request, into: body) } catch {
            throw .failed(RemoteServer.error(error, location.text, "open"))
        }
        guard response.status == 404, !response.contentType.hasPrefix(MediaType.problem) else {
            return nil
        }
        var options = server.options
        options.token = nil
        // It says so of every error, and would only say it again.
        options.repeats500 = false
        let anonymous = try RemoteServer(location, options)
        let hasToken = server.options.token != nil
        let root = PdiffcopyServer(anonymous, path: "/", hasToken: hasToken)
        guard (try? root.size()).flatMap({ $0 }) != nil else {
            throw .failed(RemoteServer.noBlkferry(location.text, "open"))
        }
        guard path.hasPrefix("/") else {
            throw .failed(
                .network(
                    location.text, "open",
                    reason: "a pdiffcopy server knows files by their paths alone"))
        }
        return PdiffcopyServer(anonymous, path: path, hasToken: hasToken)
    }
}

/// The requests that it understands.
extension PdiffcopyServer {
    /// `GET /info`.
    private struct Info: Decodable {
        var size: Int
    }

    /// Bytes; beyond all files, and so far from `Int.max` that no rounding up overflows.
    private static let maximumSize = 1 << 60

    /// The file's size in bytes, 0 for a device; `nil` where there is no such file.
    func size() throws(IOError) -> Int? {
        let body = ResponseBody(limit: Limits.json)
        let response = try send(HTTPRequest(.get, url("info")), "get status", into: body)
        if response.status == 404 { return nil }
        try require(response, "get status")
        guard response.contentType.hasPrefix(MediaType.json),
            let info = try? WireJSON.decode(Info.self, from: body.bytes),
            (0...Self.maximumSize).contains(info.size)
        else {
            throw .network(
                name, "get status", reason: "the server's answer cannot be understood")
        }
        return info.size
    }

    /// Whether there is a byte in a file whose size is said to be 0: then it is a device.
    func holdsBytes() throws(IOError) -> Bool {
        let body = ResponseBody(limit: 1)
        let query = [("offset", "0"), ("size", "1")]
        let request = HTTPRequest(.get, url("blocks", query), isRetried: false)
        try require(try send(request, "read", into: body), "read")
        return body.bytes.count > 0
    }

    /// Asks for the digests of all blocks.
    ///
    /// - Parameters:
    ///   - block: bytes.
    ///   - method: one that `PdiffcopyDevice` takes.
    ///   - concurrency: processes of the server; `nil` for as many as it likes.
    ///   - sink: gets the lines.
    /// - Throws: errors of the network, and the server's.
    func digests(
        block: Int, method: DigestMethod, concurrency: Int?, into sink: any ResponseSink
    ) throws(IOError) {
        var query = [("block_size", "\(block)"), ("method", Self.name(of: method))]
        if let concurrency { query.append(("concurrency", "\(concurrency)")) }
        let response = try send(HTTPRequest(.get, url("hashes", query)), "compare", into: sink)
        try require(response, "compare")
    }

    /// Reads a range of the file.
    ///
    /// - Parameters:
    ///   - range: at most what the body takes.
    ///   - body: gets exactly these bytes.
    ///   - mayWait: says as long as it is asked that the server has reason to be silent.
    /// - Throws: errors of the network, and the server's.
    func read(
        _ range: ByteRange, into body: ResponseBody, mayWait: @escaping () -> Bool = { false }
    ) throws(IOError) {
        let operation = "read at \(range)"
        let query = [("offset", "\(range.offset)"), ("size", "\(range.length)")]
        var request = HTTPRequest(.get, url("blocks", query))
        request.mayWait = mayWait
        let response = try send(request, operation, into: body)
        try require(response, operation)
        guard body.bytes.count == range.length else {
            throw .network(
                name, operation, reason: "the server has sent \(body.bytes.count) bytes")
        }
    }

    /// Writes adjacent pieces.
    ///
    /// - Parameters:
    ///   - parts: in their order.
    ///   - offset: of the first one, in bytes.
    ///   - mayWait: says as long as it is asked that the server has reason to be silent.
    /// - Throws: errors of the network, and the server's.
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
        try require(try send(request, operation, into: body), operation)
    }

    /// Gives the file a size, in bytes, and creates it where it is missing.
    func resize(to size: Int) throws(IOError) {
        let operation = "resize to \(size) bytes"
        let body = ResponseBody(limit: Limits.json)
        let request = HTTPRequest(.post, url("resize", [("size", "\(size)")]))
        try require(try send(request, operation, into: body), operation)
        guard try self.size() == size else {
            throw .network(name, operation, reason: "it has another size afterwards")
        }
    }

    private func url(_ endpoint: String, _ query: [(String, String)] = []) -> String {
        "/\(endpoint)?"
            + ([("filename", path)] + query).map { "\($0)=\(percentEncoded($1))" }
            .joined(separator: "&")
    }

    private func send(
        _ request: HTTPRequest, _ operation: String, into sink: any ResponseSink
    ) throws(IOError) -> HTTPResponse {
        do throws(HTTPError) { return try transport.send(request, into: sink) } catch {
            throw RemoteServer.error(error, name, operation)
        }
    }

    private func require(_ response: HTTPResponse, _ operation: String) throws(IOError) {
        guard response.status != 200 else { return }
        throw .network(
            name, operation, reason: "the pdiffcopy server answers \(response.status)",
            advice: response.status == 500 ? "Its log tells why." : nil)
    }

    /// The name that Python's hashlib has for a method, in every release since 3.6.
    private static func name(of method: DigestMethod) -> String {
        hashlibNames[method.name] ?? method.name
    }

    /// Names of hashlib, by ours.
    ///
    /// Others depend on the libcrypto over there, and where one is missing, pdiffcopy does
    /// not answer, and leaves processes behind.
    static let hashlibNames = [
        "md5": "md5", "sha1": "sha1", "sha224": "sha224", "sha256": "sha256", "sha384": "sha384",
        "sha512": "sha512", "sha3-224": "sha3_224", "sha3-256": "sha3_256",
        "sha3-384": "sha3_384", "sha3-512": "sha3_512", "blake2b512": "blake2b",
        "blake2s256": "blake2s",
    ]
}
