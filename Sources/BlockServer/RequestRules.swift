// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import NIOHTTP1
internal import WireProtocol

/// What a request may be, going by its head alone: pure.
enum RequestRules {
    /// Bytes of the table and the digest of an answer to a read request.
    private static let tableCost = 256 << 10

    /// Bytes that an answer may take.
    ///
    /// - Parameters:
    ///   - route: what is asked.
    ///   - size: of the request's body.
    /// - Returns: 0 for small answers: who is only asked how it goes must not wait for those who do
    ///   not read what they asked for.
    static func answerCost(_ route: Route?, _ size: Int) -> Int {
        switch route {
        case .read: Limits.payload + tableCost
        // For a region's digest at most 128 of blocks come back, with marks and index; a map has
        // 16 KiB.
        case .compare: max(32 << 10, min(150 * size, Limits.blocks * 64 + tableCost))
        case .content: ContentSource.step
        case .pdiffcopy(let call):
            switch call.endpoint {
            case .hashes, .blocks: ContentSource.step
            case .info, .resize: 0
            }
        default: 0
        }
    }

    static func contentLength(of head: HTTPRequestHead) -> Int? {
        if head.headers.contains(name: "Transfer-Encoding") { return nil }
        let values = head.headers["Content-Length"]
        guard let first = values.first else { return 0 }
        guard values.count == 1, let length = Int(first), length >= 0 else { return nil }
        return length
    }

    /// What speaks against a request, going by its head alone.
    static func reject(_ head: HTTPRequestHead, _ route: Route?, _ length: Int?) -> Response? {
        let headerBytes = head.headers.reduce(head.uri.utf8.count) {
            $0 + $1.name.utf8.count + $1.value.utf8.count + 4
        }
        if headerBytes > 16 << 10 || head.headers.count > 100 {
            return Response(
                Problem(
                    .tooLarge, status: 431, "The header is too large",
                    detail: "the header has more than 16 KiB or 100 lines"))
        }
        guard let route else {
            return Response(
                Problem(
                    .notFound, status: 404, "There is nothing here",
                    detail: "the server has no such path"))
        }
        guard route.methods.contains(head.method.rawValue) else {
            var response = Response(
                Problem(
                    .method, status: 405, "The method is not allowed",
                    detail: "allowed are \(route.methods.joined(separator: ", "))"))
            response.headers.add(name: "Allow", value: route.methods.joined(separator: ", "))
            return response
        }
        guard let length else {
            return Response(
                Problem(
                    .lengthRequired, status: 411, "A length is required",
                    detail: "one Content-Length is required, and no Transfer-Encoding"))
        }
        let limit = bodyLimit(route)
        if length > limit {
            return Response(
                Problem(
                    .tooLarge, status: 413, "The body is too large",
                    detail: "a body may have \(limit) bytes here, and not \(length)"))
        }
        if let wanted = mediaType(route) {
            let given = head.headers["Content-Type"].first ?? ""
            let bare = given.split(separator: ";").first.map(String.init) ?? ""
            guard bare.lowercased() == wanted else {
                return Response(
                    Problem(
                        .mediaType, status: 415, "The content type is not supported",
                        detail: "it must be \(wanted)"))
            }
        }
        return nil
    }

    /// The answer to who shows no token; `certified` is the name in a certificate shown instead.
    static func unauthorized(_ certified: String?) -> Response {
        unauthorized(
            certified.map { "no token was shown, and \($0) is not allowed in without one" }
                ?? "no token was shown")
    }

    /// The answer to who shows a token that nobody has.
    static var wrongToken: Response { unauthorized("the server does not know the token") }

    /// The answer to a certificate that names nobody.
    static var unnamed: Response {
        var problem = Problem(
            .unauthorized, status: 401, "The certificate names nobody",
            detail: "the certificate's common name is not of 1 to 64 letters, digits and ._@-")
        problem.advice = "The client shows it with --cert FILE."
        return Response(problem)
    }

    /// As in RFC 6750, section 3.
    private static func unauthorized(_ reason: String) -> Response {
        var problem = Problem(
            .unauthorized, status: 401, "A token is needed", detail: reason)
        problem.advice = "The client takes one from --token-file FILE or BLKFERRY_TOKEN."
        var response = Response(problem)
        response.headers.add(name: "WWW-Authenticate", value: "Bearer realm=\"blkferry\"")
        return response
    }

    static func bodyLimit(_ route: Route) -> Int {
        switch route {
        case .sessions, .commit: Limits.json
        // Every block a region, and a range of its own.
        case .compare:
            CompareRequest.headerSize(ranges: Limits.blocks) + (Limits.blocks + 1) * Limits.digest
        case .read: ExtentFrame.tableSize(count: Limits.extents) + Limits.digest
        case .write: Limits.body
        case .pdiffcopy(let call): call.endpoint == .blocks ? PdiffcopyCall.maximumBlock : 0
        case .info, .devices, .device, .content, .session: 0
        }
    }

    static func mediaType(_ route: Route) -> String? {
        switch route {
        case .sessions, .commit: MediaType.json
        case .compare, .read, .write: MediaType.frames
        case .info, .devices, .device, .content, .session, .pdiffcopy: nil
        }
    }
}
