// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO

package struct HTTPRequest {
    package enum Method: String, Sendable {
        case get = "GET"
        case head = "HEAD"
        case post = "POST"
        case delete = "DELETE"
    }

    package var method: Method
    /// Path and query, percent-encoded; it starts with `/` and is sent unchanged.
    package var path: String
    /// Only a `POST` sends it.
    package var contentType: String?
    /// The body of a `POST`, which must stay valid until the call returns; `nil` for an empty one.
    package var body: UnsafeRawBufferPointer?
    /// A body in several pieces, sent in order in place of `body`.
    package var parts: [UnsafeRawBufferPointer] = []
    /// Seconds without a byte in either direction after which an attempt fails.
    ///
    /// They count from the completed connection. Before that `connectSeconds` is the limit. If the
    /// other host does not even acknowledge, half a minute is.
    package var silence: Double
    /// Minimum bytes a second of both directions together; an attempt fails if it is slower for
    /// longer than `silence`.
    package var leastRate = Pace.leastRate
    /// Whether the request may be sent again after a failed attempt.
    ///
    /// A request that may not gets a connection of its own, because libcurl itself repeats a
    /// request if the server closes a reused connection at that moment.
    package var isRetried: Bool
    /// Whether the request is sent without the transport's token.
    var isAnonymous = false
    /// Returns whether the server currently has a reason to be silent.
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
    var bodyCount: Int { parts.reduce(body?.count ?? 0) { $0 + $1.count } }
}

package struct HTTPResponse: Hashable, Sendable {
    package var status: Int
    /// Empty if the header is missing.
    package var contentType: String

    package init(status: Int, contentType: String) {
        self.status = status
        self.contentType = contentType
    }
}

extension IOError {
    /// The reason why there is no answer; `HTTPTransport.send` adds the object and the operation.
    package static func transport(
        _ reason: String, kind: Kind = .network, advice: String? = nil
    ) -> IOError {
        var error = IOError("", "", reason: reason, advice: advice)
        error.kind = kind
        return error
    }

    static var noMemory: IOError {
        transport("not enough memory", kind: .device, advice: Memory.advice)
    }

    static var cancelled: IOError { transport("cancelled", kind: .cancelled) }

    static func noConnection(within seconds: Double) -> IOError {
        let time = seconds.rounded() == seconds ? "\(Int(seconds))" : "\(seconds)"
        return transport("no connection within \(time) s")
    }

    /// Adds the proxy to an error of a request that went through it.
    func through(_ proxy: Proxy?) -> IOError {
        guard let proxy, kind == .network || kind == .unauthorized else { return self }
        var error = self
        error.reason = proxy.hidden(in: reason) + ", through the proxy \(proxy.description)"
        if error.advice == nil {
            error.advice = "To connect without the proxy, set no_proxy=HOST."
        }
        return error
    }
}
