// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import NIOCore
internal import NIOHTTP1
internal import WireProtocol

/// Rules for requests that need only the head, as pure functions.
enum RequestRules {
    /// Bytes; a larger response to a GET counts in the budget once it is made.
    static let smallAnswer = 64 << 10

    /// Downloads of one client that may wait for memory; each keeps its device open.
    static let waitingDownloads = 64

    /// Least bytes that a client must send or take within a time.
    ///
    /// A client with many connections over a slow line, or with `--bwlimit`, manages that. A client
    /// that sends a byte now and then does not.
    static func leastProgress(in time: TimeAmount) -> Int {
        max(1, Int(time.nanoseconds / 1_000_000) * leastRate / 1000)
    }

    /// Bytes a second, on each connection.
    private static let leastRate = 32

    static var noMemoryInTime: Response {
        Response(
            .busy, status: 503, "The server is out of memory",
            detail: "other requests, or those of this client, have all of the memory")
    }

    static var tooSlow: Response {
        Response(
            .timeout, status: 408, "The request took too long",
            detail: "the rest of the request did not come, or came too slowly")
    }

    /// Splits the target of a request line, which may be a whole URL (RFC 9112, section 3.2.2).
    static func target(of uri: String) -> (path: String, authority: String?) {
        for scheme in ["http://", "https://"]
        where uri.utf8.count > scheme.utf8.count
            && uri.prefix(scheme.count).lowercased() == scheme
        {
            let rest = uri.dropFirst(scheme.count)
            let authority = rest.prefix { !"/?#".contains($0) }
            let path = rest.dropFirst(authority.count)
            return (path.first == "/" ? String(path) : "/\(path)", String(authority))
        }
        return (uri, nil)
    }

    /// Rejects a missing or repeated `Host` (RFC 9112, section 3.2).
    static func rejectHost(_ head: HTTPRequestHead) -> Response? {
        let count = head.headers["Host"].count
        guard count > 1 || count == 0 && head.version != .http1_0 else { return nil }
        return Response(
            .malformed, status: 400, "The request is malformed",
            detail: count == 0 ? "Host is missing" : "Host is there \(count) times")
    }

    static func contentLength(of head: HTTPRequestHead) -> Int? {
        if head.headers.contains(name: "Transfer-Encoding") { return nil }
        let values = head.headers["Content-Length"]
        guard let first = values.first else { return 0 }
        guard values.count == 1, let length = Int(first), length >= 0 else { return nil }
        return length
    }

    static func reject(
        _ head: HTTPRequestHead, _ route: (any ServedRoute)?, _ length: Int?
    ) -> Response? {
        let headerBytes = head.headers.reduce(head.uri.utf8.count) {
            $0 + $1.name.utf8.count + $1.value.utf8.count + 4
        }
        if headerBytes > 16 << 10 || head.headers.count > 100 {
            return Response(
                .tooLarge, status: 431, "The header is too large",
                detail: "the header has more than 16 KiB or 100 lines")
        }
        guard let route else {
            return Response(
                .notFound, status: 404, "There is nothing here",
                detail: "the server has no such path")
        }
        guard route.methods.contains(head.method.rawValue) else {
            var response = Response(
                .method, status: 405, "The method is not allowed",
                detail: "allowed are \(route.methods.joined(separator: ", "))")
            response.headers.add(name: "Allow", value: route.methods.joined(separator: ", "))
            return response
        }
        guard let length else {
            return Response(
                .lengthRequired, status: 411, "A length is required",
                detail: "one Content-Length is required, and no Transfer-Encoding")
        }
        let limit = route.bodyLimit
        if length > limit {
            return Response(
                .tooLarge, status: 413, "The body is too large",
                detail: "a body may have \(limit) bytes here, and not \(length)")
        }
        if let wanted = route.mediaType {
            let given = head.headers["Content-Type"].first ?? ""
            let bare = given.split(separator: ";").first.map(String.init) ?? ""
            guard bare.lowercased() == wanted else {
                return Response(
                    .mediaType, status: 415, "The content type is not supported",
                    detail: "it must be \(wanted)")
            }
        }
        return nil
    }

    static func noToken(_ certified: String?) -> Response {
        guard let certified else { return unauthorized("no token was shown", .missing) }
        return unauthorized("no token was shown, and \(certified) needs one")
    }

    static var wrongToken: Response { unauthorized("the server does not know the token", .wrong) }
    static var tokenIsGone: Response { unauthorized("the server does not take the token any more") }

    static var expired: Response { unauthorized("the token has expired") }

    static var misplaced: Response {
        unauthorized("the server does not take the token from this address")
    }

    /// 429 while the client's address still waits for the response to a wrong token.
    static func waiting(_ wait: Duration) -> Response {
        let seconds = max(1, Int((wait / .seconds(1)).rounded(.up)))
        return tooMany(
            .unauthorized,
            "wrong tokens came from this address: the next one is checked in \(seconds) s",
            after: seconds)
    }

    static func tooMany(_ kind: Problem.Kind, _ detail: String, after seconds: Int = 1) -> Response
    {
        var response = Response(kind, status: 429, "Too many requests", detail: detail)
        response.headers.replaceOrAdd(name: "Retry-After", value: "\(seconds)")
        return response
    }

    static var expiredCertificate: Response {
        Response(
            .unauthorized, status: 401, "The certificate has expired",
            detail: "the client's certificate has expired")
    }

    static var unnamed: Response {
        Response(
            .unauthorized, status: 401, "The certificate names no client",
            detail: "the certificate's common name is not of 1 to 64 letters, digits and ._@-",
            advice: "The client shows it with --cert FILE.")
    }

    /// 401 as in RFC 6750, section 3.
    private static func unauthorized(
        _ reason: String, _ fault: Response.TokenFault? = nil
    ) -> Response {
        var response = Response(
            .unauthorized, status: 401, "A token is needed", detail: reason,
            advice: "The client takes one from --token-file FILE or BLKFERRY_TOKEN.")
        response.headers.add(name: "WWW-Authenticate", value: "Bearer realm=\"blkferry\"")
        response.tokenFault = fault
        return response
    }
}
