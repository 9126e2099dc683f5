// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CCurl
package import LinuxIO
internal import Synchronization

/// Sends requests to one server, and retries them during short outages.
///
/// Requests of several threads share only the rate limit and the retry policy. Each request takes a
/// handle with its kept-alive connection out of the pool, the last used one first. N threads
/// therefore use N connections.
///
/// A temporary failure is a lost connection, a timeout, an incomplete answer, a 429, 502, 503 or
/// 504, or a 500 without a problem body (RFC 9457). The request is retried after 0.1 s, doubling up
/// to 3 s, or after `Retry-After`, up to 5 s.
///
/// The transport gives up if no request succeeded for `retrySeconds` after a failure, or if one
/// request used up its attempts. Every further request then fails at once with the same error, so
/// that cleaning up does not wait again. Before the first success a failed connection is not
/// retried, because the address may be wrong.
package final class HTTPTransport: Sendable {
    package struct Options: Sendable {
        /// Scheme, host and port, such as `http://127.0.0.1:8080` or `http://[::1]:8080`.
        package var base: String
        /// The object of errors, such as the server's URL.
        var name: String
        /// A unix socket to connect to in place of the base's host.
        var socket: String?
        /// Timeout of a connection in seconds, including TLS.
        package var connectSeconds = 10.0
        /// Seconds for which requests are retried after the first failure that follows a success;
        /// 0 for no retries.
        package var retrySeconds = 30.0
        /// Bytes a second of all connections together, in both directions and including headers;
        /// `nil` for no limit.
        package var bytesPerSecond: Int?
        /// `nil` for no such header.
        package var userAgent: String?
        /// Sent as `Authorization: Bearer` (RFC 6750, section 2.1), never in a URL.
        package var token: String?
        /// TLS settings for `https`; the transport never falls back to http.
        package var trust = ServerTrust()
        /// `nil` for no proxy, whatever the environment says.
        var proxy: Proxy?
        /// Makes the connections in place of libcurl; `nil` for libcurl.
        var connector: (any Connector)?
        /// Whether a 500 without a problem body is retried.
        var repeats500 = true
        /// Seconds for which a request may continue after a cancellation.
        package var graceSeconds = 5.0
        /// Called with the reason and the delay of every retry, until the outage is reported.
        package var log: @Sendable (String) -> Void
        /// Called once when requests fail for some seconds, and once when one succeeds again.
        package var report: @Sendable (Outage) -> Void = { _ in }
        /// Polled several times a second by every thread.
        package var isCancelled: @Sendable () -> Bool

        package init(
            base: String, log: @escaping @Sendable (String) -> Void = { _ in },
            isCancelled: @escaping @Sendable () -> Bool = { false }
        ) {
            self.base = base
            name = base
            self.log = log
            self.isCancelled = isCancelled
        }
    }

    /// The reason why libcurl cannot be loaded; `nil` if it is loaded.
    private static let absence = cc_load().map { String(cString: $0) }

    /// The result of libcurl's global initialization, which is never undone.
    private static let preparation = curl_global_init(Int(CURL_GLOBAL_DEFAULT))

    /// Descriptors of a handle: the connection, libcurl's wake-up and its name lookup; with a
    /// connector the pipes of its process as well.
    private var descriptorsOfHandle: Int { options.connector == nil ? 6 : 12 }

    private let options: Options
    private let limiter: RateLimiter?
    /// The idle handles, the last used one at the end.
    private let pool: Mutex<[CurlHandle]>
    private let policy: Mutex<RetryPolicy>
    /// Whether a connector is making a new connection.
    private let isGrowing = Atomic(false)
    private let sent = Atomic(0)
    private let received = Atomic(0)

    /// The least `CurlHandle.Attempt.answerSeconds` of all requests; `nil` before the first answer.
    private let leastAnswerSeconds = Mutex<Double?>(nil)
    /// Whether the server has refused a request because it has too many.
    private let isCrowded = Atomic(false)

    /// Seconds of a round trip from which a line counts as long.
    ///
    /// A line of 6 Gbit/s holds in that time what eight connections with 2 MiB each send.
    private static let longTrip = 0.02

    /// Bytes a second; at less, eight connections with 2 MiB each are enough up to a round trip of
    /// half a second.
    private static let leastRateOfLongLine = 32 << 20

    /// Prepares without connecting; throws if the base is not a server's address, or libcurl cannot
    /// start.
    package init(_ options: Options) throws(IOError) {
        guard Self.isServer(options.base) else {
            throw .transport("\(options.base) is not the address of an HTTP server")
        }
        if let reason = Self.absence {
            throw .transport("libcurl cannot be loaded: \(reason)")
        }
        guard Self.preparation == CURLE_OK else {
            throw .transport("libcurl cannot start")
        }
        self.options = options
        limiter = options.bytesPerSecond.map { RateLimiter(bytesPerSecond: $0) }
        policy = Mutex(RetryPolicy(retrySeconds: options.retrySeconds))
        pool = Mutex([])
        let first = try newHandle()
        pool.withLock { $0.append(first) }
    }

    /// Bytes of headers and bodies so far, including failed attempts.
    package var traffic: (sent: Int, received: Int) {
        (sent.load(ordering: .relaxed), received.load(ordering: .relaxed))
    }

    /// Sends a request and waits for the answer; any number of threads may call it at once.
    ///
    /// Redirects are ordinary answers. If the retries are used up and the server did answer (429,
    /// 500, 502, 503 or 504), that answer is returned.
    ///
    /// After a cancellation a request may continue for `graceSeconds`, and nothing is retried. A
    /// request that starts after the cancellation has the same time, for cleaning up. During an
    /// outage it is a second at most, and the first cancelled attempt ends the transport.
    ///
    /// - Parameters:
    ///   - operation: names the request in an error.
    ///   - body: gets the body of one attempt. Its content is undefined after an error.
    /// - Throws: the error of the last attempt.
    package func send(
        _ request: HTTPRequest, _ operation: String, into body: any ResponseSink
    ) throws(IOError) -> HTTPResponse {
        do throws(IOError) { return try answer(to: request, into: body) } catch {
            var error = error
            (error.object, error.operation) = (options.name, operation)
            throw error
        }
    }

    private func answer(
        to request: HTTPRequest, into body: any ResponseSink
    ) throws(IOError) -> HTTPResponse {
        precondition(request.path.hasPrefix("/"))
        precondition(request.method == .post || request.bodyCount == 0, "a body without POST")
        if let finalError { throw finalError }
        let (first, isNew) = try takeHandle()
        var handle = first
        defer { pool.withLock { $0.append(handle) } }
        var attempt = 1
        while true {
            defer { if isNew { isGrowing.store(false, ordering: .releasing) } }
            let left = policy.withLock { $0.secondsLeft(at: .now) }
            let result = try handle.attempt(request, into: body, retrySecondsLeft: left)
            note(result)
            if !options.repeats500, case .answer(let response, _) = result.outcome,
                response.status == 500
            {
                return response
            }
            let jitter = Double.random(in: 0...1)
            let (decision, news) = policy.withLock { policy in
                let decision = policy.decide(
                    result.outcome, attempt: attempt, isRetried: request.isRetried, jitter: jitter,
                    now: .now)
                return (decision, policy.takeNews(at: .now))
            }
            if let news { report(news) }
            switch decision {
            case .done(let response): return response
            case .fail(let error): throw error.through(options.proxy)
            case .again(let seconds, let reason): try backOff(seconds, reason)
            }
            attempt += 1
            // A server with too many connections still serves those that it has.
            if isCrowded.load(ordering: .relaxed) { handle = exchanged(handle) }
        }
    }

    /// Puts a handle back for one that another request has used since, if there is one.
    private func exchanged(_ handle: CurlHandle) -> CurlHandle {
        guard options.connector == nil else { return handle }
        return pool.withLock { pool in
            guard let other = pool.popLast() else { return handle }
            pool.insert(handle, at: 0)
            return other
        }
    }

    private func note(_ result: CurlHandle.Attempt) {
        sent.wrappingAdd(result.sent, ordering: .relaxed)
        received.wrappingAdd(result.received, ordering: .relaxed)
        guard case .answer(let response, _) = result.outcome else { return }
        switch response.status {
        case ..<400:
            guard let seconds = result.answerSeconds else { return }
            leastAnswerSeconds.withLock { $0 = min($0 ?? seconds, seconds) }
        case 429, 503: isCrowded.store(true, ordering: .relaxed)
        default: break
        }
    }

    /// Seconds of a round trip if the line is so long that more connections may move more.
    ///
    /// It is the least time of an answer so far, with the server's work. It is `nil` on a short
    /// line, with a low rate limit, whose waits are in that time, after the server had too many
    /// requests, and for ssh, whose connections are processes.
    var longRoundTrip: Double? {
        guard options.connector == nil, !isCrowded.load(ordering: .relaxed),
            options.bytesPerSecond ?? .max >= Self.leastRateOfLongLine
        else { return nil }
        return leastAnswerSeconds.withLock { $0 }.flatMap { $0 < Self.longTrip ? nil : $0 }
    }

    private func backOff(_ seconds: Double, _ reason: String?) throws(IOError) {
        let tenths = (seconds * 10).rounded(.up) / 10
        if let reason { options.log("\(shown(reason)); trying again in \(tenths) s") }
        let isDone = pause(for: .seconds(seconds)) { options.isCancelled() || finalError != nil }
        guard !isDone else { return }
        throw finalError ?? .cancelled
    }

    private func report(_ outage: Outage) {
        guard case .began(let seconds, let reason) = outage else { return options.report(outage) }
        options.report(.began(seconds: seconds, reason: shown(reason)))
    }

    /// A reason without the password of the proxy.
    private func shown(_ reason: String) -> String {
        options.proxy?.hidden(in: reason) ?? reason
    }

    /// Sends a request on a connection of its own, which a later request then finds ready.
    ///
    /// A failure is not reported; the later request connects again, and reports it.
    func connectAhead(_ request: HTTPRequest, into body: any ResponseSink) {
        guard Descriptors.hasRoom(for: descriptorsOfHandle), let handle = try? newHandle(),
            let result = try? handle.attempt(request, into: body, retrySecondsLeft: nil)
        else { return }
        note(result)
        guard case .answer = result.outcome else { return }
        // The last one is that of the run's next request.
        pool.withLock { $0.insert(handle, at: 0) }
    }

    var hasIdleConnection: Bool { pool.withLock { !$0.isEmpty } }

    private var finalError: IOError? { policy.withLock { $0.finalError }?.through(options.proxy) }

    /// Takes a handle out of the pool, or makes one.
    ///
    /// A connector makes one connection at a time. Other threads wait for that connection or for a
    /// free handle, so the run starts with the first connection.
    private func takeHandle() throws(IOError) -> (CurlHandle, isNew: Bool) {
        while true {
            if let handle = pool.withLock({ $0.popLast() }) { return (handle, false) }
            // If the process cannot open more files, a request waits for another request's
            // connection.
            let isBusy = isGrowing.load(ordering: .relaxed)
            if !isBusy, Descriptors.hasRoom(for: descriptorsOfHandle) {
                if options.connector == nil { return (try newHandle(), false) }
                let isMine = !isGrowing.exchange(true, ordering: .acquiringAndReleasing)
                if isMine { return (try firstHandle(), true) }
            }
            pause(for: .milliseconds(2))
            if let finalError { throw finalError }
        }
    }

    private func newHandle() throws(IOError) -> CurlHandle {
        try CurlHandle(options, limiter, isOnLongLine: longRoundTrip != nil) {
            [weak self] in self?.hasGivenUp() ?? false
        }
    }

    /// Whether the transport has given up; reports an outage as soon as it has lasted long enough,
    /// although an attempt is in progress.
    private func hasGivenUp() -> Bool {
        let (news, isOver) = policy.withLock { policy in
            (policy.takeNews(at: .now), policy.finalError != nil)
        }
        if let news { report(news) }
        return isOver
    }

    /// Makes a handle for a connection that no other thread makes meanwhile; after a failure another
    /// thread may try.
    private func firstHandle() throws(IOError) -> CurlHandle {
        do throws(IOError) { return try newHandle() } catch {
            isGrowing.store(false, ordering: .releasing)
            throw error
        }
    }

    /// The message suffix that names the proxy; empty without one.
    var way: String { options.proxy.map { ", through the proxy \($0.description)" } ?? "" }

    private static func isServer(_ base: String) -> Bool {
        for scheme in ["http://", "https://"] where base.hasPrefix(scheme) {
            let authority = base.dropFirst(scheme.count)
            return !authority.isEmpty && !authority.contains("/")
        }
        return false
    }
}
