// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// One request, as a value.
package struct HTTPRequest {
    package enum Method: String, Sendable {
        case get = "GET"
        case head = "HEAD"
        case post = "POST"
        case delete = "DELETE"
    }

    package var method: Method
    /// Path and query, percent-encoded; it starts with `/` and is sent as it stands.
    package var path: String
    /// Sent with a `POST` only.
    package var contentType: String?
    /// The body of a `POST`, which must stay valid until the call returns; `nil` for an empty one.
    package var body: UnsafeRawBufferPointer?
    /// A body in several pieces, which is sent in their order in place of `body`.
    package var parts: [UnsafeRawBufferPointer] = []
    /// Seconds without a byte in either direction after which an attempt counts as failed.
    ///
    /// They count from when the connection stands; until then `connectSeconds` is the limit.
    package var silence: Double
    /// Whether it may be sent again when an attempt failed.
    ///
    /// One that may not gets a connection of its own: on a connection that was used before, libcurl
    /// itself sends a request again when the server closed it just then.
    package var isRetried: Bool
    /// Whether the transport's token stays at home.
    var isAnonymous = false
    /// Says as long as it is asked that the server has reason to be silent.
    package var mayWait: (() -> Bool)?

    package init(
        _ method: Method, _ path: String, contentType: String? = nil,
        body: UnsafeRawBufferPointer? = nil, silence: Double = 60, isRetried: Bool = true
    ) {
        self.method = method
        self.path = path
        self.contentType = contentType
        self.body = body
        self.silence = silence
        self.isRetried = isRetried
    }
}

extension HTTPRequest {
    /// Bytes of the body.
    var bodyCount: Int { parts.reduce(body?.count ?? 0) { $0 + $1.count } }
}

/// What an answer says besides its body.
package struct HTTPResponse: Hashable, Sendable {
    package var status: Int
    /// Empty where the answer has none.
    package var contentType: String

    package init(status: Int, contentType: String) {
        self.status = status
        self.contentType = contentType
    }
}

/// Why there is no answer.
package struct HTTPError: Error, Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        /// No connection, or one that was lost.
        case unreachable
        /// A server that this side does not trust, or that does not trust this side.
        case untrusted
        /// A connection, but nothing came or went for too long; or none in time.
        case timeout
        /// The body is larger than the caller takes.
        case tooLarge
        /// What came is not HTTP, or not within reason.
        case protocolViolation
        /// The caller's wish.
        case cancelled
    }

    package var kind: Kind
    /// One line.
    package var reason: String
    /// One line, what the user can do about it.
    package var advice: String?

    package init(_ kind: Kind, _ reason: String, advice: String? = nil) {
        self.kind = kind
        self.reason = reason
        self.advice = advice
    }
}

extension HTTPError: CustomStringConvertible {
    package var description: String { reason }
}
