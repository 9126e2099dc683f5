// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CCurl
internal import Synchronization

/// Sends requests to one server and tries them again while it is away for a moment.
///
/// Requests of several threads share the rate limit, the retry policy and nothing else: each takes
/// a handle with its kept-alive connection out of the pool for as long as it lasts, the last used
/// one first, so that N threads use N connections.
///
/// A request that failed in passing (the connection was lost, nothing came for too long, the answer
/// was cut off, a 502, 503 or 504, a 500 that is not RFC 9457's) is tried again after 0.1 s, 0.2 s,
/// and so on up to 3 s, or as long as `Retry-After` says, up to 5 s. When that has gone on for
/// `retrySeconds` without any request of the transport having succeeded, and the request was tried
/// three times, the transport gives up for good: every further request fails at once with the same
/// error, so that cleaning up does not wait all over again. Until the first success a connection
/// that does not come about is not tried again: the address may be wrong.
package final class HTTPTransport: Sendable {
    package struct Options: Sendable {
        /// Scheme, host and port: `http://127.0.0.1:8080`, `http://[::1]:8080`.
        package var base: String
        /// Within which a connection must stand, TLS included.
        package var connectSeconds = 10.0
        /// How long after the last success, or the first failure that followed it, a request is
        /// tried again.
        package var retrySeconds = 30.0
        /// What all connections together may send and receive, headers included; `nil` for no
        /// limit.
        package var bytesPerSecond: Int?
        /// `nil` for no such header.
        package var userAgent: String?
        /// Sent as `Authorization: Bearer` (RFC 6750, section 2.1), never in a URL.
        package var token: String?
        /// For `https`, which never becomes anything else.
        package var trust = ServerTrust()
        /// Makes the connections; `nil` for libcurl.
        var connector: (any Connector)?
        /// Whether a 500 that does not say what is wrong may pass.
        var repeats500 = true
        /// How long a request in work may go on after the wish to end.
        package var graceSeconds = 5.0
        /// Told of every retry: what failed, and in how many seconds it is tried again.
        package var log: @Sendable (String) -> Void
        /// Asked several times a second by every thread.
        package var isCancelled: @Sendable () -> Bool

        package init(
            base: String, log: @escaping @Sendable (String) -> Void = { _ in },
            isCancelled: @escaping @Sendable () -> Bool = { false }
        ) {
            self.base = base
            self.log = log
            self.isCancelled = isCancelled
        }
    }

    /// Why libcurl cannot be loaded; `nil` when it is.
    private static let absence = cc_load().map { String(cString: $0) }

    /// libcurl's own preparation, which is made once and never undone.
    private static let preparation = curl_global_init(Int(CURL_GLOBAL_DEFAULT))

    private let options: Options
    private let limiter: RateLimiter?
    /// The handles that no request uses, the last used one at the end.
    private let pool: Mutex<[CurlHandle]>
    private let policy: Mutex<RetryPolicy>
    /// Whether a connector makes a connection that there was not before.
    private let isGrowing = Atomic(false)
    private let sent = Atomic(0)
    private let received = Atomic(0)

    /// Prepares; it does not connect yet.
    ///
    /// - Parameter options: where to, and how.
    /// - Throws: for a base that is no server's address, and where libcurl cannot start.
    package init(_ options: Options) throws(HTTPError) {
        guard Self.isServer(options.base) else {
            throw HTTPError(.unreachable, "\(options.base) is not the address of an HTTP server")
        }
        if let reason = Self.absence {
            throw HTTPError(.unreachable, "libcurl cannot be loaded: \(reason)")
        }
        guard Self.preparation == CURLE_OK else {
            throw HTTPError(.unreachable, "libcurl cannot start")
        }
        self.options = options
        limiter = options.bytesPerSecond.map { RateLimiter(bytesPerSecond: $0) }
        policy = Mutex(RetryPolicy(retrySeconds: options.retrySeconds))
        pool = Mutex([try CurlHandle(options, limiter)])
    }

    /// Bytes of headers and bodies so far, those of failed attempts included.
    package var traffic: (sent: Int, received: Int) {
        (sent.load(ordering: .relaxed), received.load(ordering: .relaxed))
    }

    /// Sends a request and waits for the answer; any number of threads may do so at once.
    ///
    /// Redirects are answers like others. Where trying again did not help and the server did answer
    /// (502, 503, 504, 500), that answer is returned.
    ///
    /// When the caller wishes to end, a request in work may go on for `graceSeconds`, and nothing is
    /// tried again. A request that is made after that has as much time, for cleaning up.
    ///
    /// - Parameters:
    ///   - request: what to send.
    ///   - body: gets the answer's body, all of it from one attempt; what it holds after an error
    ///     means nothing.
    /// - Returns: status and content type.
    /// - Throws: where there is no answer, with the reason of the last attempt.
    package func send(
        _ request: HTTPRequest, into body: any ResponseSink
    ) throws(HTTPError) -> HTTPResponse {
        precondition(request.path.hasPrefix("/"))
        precondition(request.method == .post || request.bodyCount == 0, "a body without POST")
        if let death { throw death }
        let (handle, isNew) = try takeHandle()
        defer { pool.withLock { $0.append(handle) } }
        var attempt = 1
        while true {
            defer { if isNew { isGrowing.store(false, ordering: .releasing) } }
            let result = try handle.attempt(request, into: body)
            sent.wrappingAdd(result.sent, ordering: .relaxed)
            received.wrappingAdd(result.received, ordering: .relaxed)
            if !options.repeats500, case .answer(let response, _) = result.outcome,
                response.status == 500
            {
                return response
            }
            let jitter = Double.random(in: 0...1)
            let decision = policy.withLock {
                $0.decide(
                    result.outcome, attempt: attempt, isRetried: request.isRetried, jitter: jitter,
                    now: .now)
            }
            switch decision {
            case .done(let response): return response
            case .fail(let error): throw error
            case .again(let seconds, let reason): try backOff(seconds, reason)
            }
            attempt += 1
        }
    }

    private func backOff(_ seconds: Double, _ reason: String) throws(HTTPError) {
        let tenths = (seconds * 10).rounded(.up) / 10
        options.log("\(reason); trying again in \(tenths) s")
        let isDone = pause(until: .now + .seconds(seconds)) {
            options.isCancelled() || death != nil
        }
        guard !isDone else { return }
        throw death ?? HTTPError(.cancelled, "cancelled")
    }

    /// Whether a request could be sent without a new connection.
    var hasIdleConnection: Bool { pool.withLock { !$0.isEmpty } }

    private var death: HTTPError? { policy.withLock { $0.death } }

    /// Takes a handle out of the pool, or makes one.
    ///
    /// A connector makes one connection at a time; who would only wait for it waits for a handle as
    /// well, and so the run is under way with the first connection.
    private func takeHandle() throws(HTTPError) -> (CurlHandle, isNew: Bool) {
        while true {
            if let handle = pool.withLock({ $0.popLast() }) { return (handle, false) }
            guard options.connector != nil else { return (try CurlHandle(options, limiter), false) }
            let isMine = !isGrowing.exchange(true, ordering: .acquiringAndReleasing)
            if isMine { return (try CurlHandle(options, limiter), true) }
            _ = pause(until: .now + .milliseconds(2)) { false }
        }
    }

    private static func isServer(_ base: String) -> Bool {
        for scheme in ["http://", "https://"] where base.hasPrefix(scheme) {
            let authority = base.dropFirst(scheme.count)
            return !authority.isEmpty && !authority.contains("/")
        }
        return false
    }
}
