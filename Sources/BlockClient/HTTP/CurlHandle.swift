// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CCurl
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// An easy handle of libcurl with its one connection, which stays open between requests.
///
/// A multi handle of its own drives it, because `curl_easy_perform` checks only once a second for
/// cancellation. It is safe to send, because only one thread uses it at a time: the one that has
/// taken it out of the transport's pool.
final class CurlHandle: @unchecked Sendable {
    /// Interval of the checks for cancellation and for activity.
    private static let pollInterval = Duration.milliseconds(200)
    /// Seconds without a byte, and without an answer of the other kernel, after which a connection
    /// is lost; several of its keepalives and retransmissions fall into that time.
    static let lossSeconds = 30.0
    /// Maximum seconds of an ssh login during an outage; without an outage there is no limit.
    private static let loginSeconds = 60.0

    /// libcurl has an unmanaged pointer to it, which it uses only until `deinit`.
    let transfer: CurlTransfer
    let options: HTTPTransport.Options
    let easy: UnsafeMutableRawPointer
    let multi: UnsafeMutableRawPointer
    let message: UnsafeMutablePointer<CChar>
    var headers: UnsafeMutablePointer<curl_slist>?
    /// The limit of a connection in the current attempt; `nil` for none.
    private(set) var connectSeconds: Double?
    /// Whether the server has answered a request of this handle.
    private var hasAnswered = false
    /// Seconds of the current attempt from the connection to the first bytes of the answer.
    private var answerSeconds: Double?
    /// Whether there may be many handles, which wait more than they move.
    let isOnLongLine: Bool

    /// Makes a handle without connecting; throws if memory runs out or this libcurl lacks an
    /// option.
    ///
    /// - Parameter hasGivenUp: ends a login of ssh, which has no limit.
    init(
        _ options: HTTPTransport.Options, _ limiter: RateLimiter?, isOnLongLine: Bool,
        unless hasGivenUp: @escaping CurlTransfer.GivenUp
    ) throws(IOError) {
        guard let easy = curl_easy_init() else { throw Self.shortage ?? .noMemory }
        guard let multi = curl_multi_init() else {
            curl_easy_cleanup(easy)
            throw Self.shortage ?? .noMemory
        }
        self.options = options
        self.isOnLongLine = isOnLongLine
        self.easy = easy
        self.multi = multi
        message = .allocate(capacity: Int(CURL_ERROR_SIZE))
        message.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
        transfer = CurlTransfer(options, limiter, hasGivenUp)
        try setUp()
        if options.connector != nil { try setUpConnector() }
    }

    deinit {
        curl_easy_cleanup(easy)
        curl_multi_cleanup(multi)
        curl_slist_free_all(headers)
        message.deallocate()
    }

    struct Attempt {
        var outcome: AttemptResult
        /// Bytes.
        var sent: Int
        var received: Int
        /// Seconds from the connection to the first bytes of the answer; `nil` without an answer.
        var answerSeconds: Double?
    }

    /// - Parameter left: the time for retries during an outage; `nil` if there is none.
    func attempt(
        _ request: HTTPRequest, into body: any ResponseSink, retrySecondsLeft left: Double?
    ) throws(IOError) -> Attempt {
        connectSeconds = connectionLimit(retrySecondsLeft: left)
        transfer.begin(
            request, into: body, connectSeconds: connectSeconds,
            grace: left == nil ? options.graceSeconds : min(options.graceSeconds, 1))
        defer { transfer.end() }
        message.pointee = 0
        try prepare(request)
        let end = run(request)
        let sent = sentBytes(request)
        transfer.limiter?.charge(max(0, sent - uploaded))
        let outcome = outcome(of: end, request, body)
        if case .answer = outcome { hasAnswered = true }
        return Attempt(
            outcome: outcome, sent: sent, received: transfer.received, answerSeconds: answerSeconds)
    }

    /// During an outage a connection gets no more than the rest of the time, and at least a second.
    ///
    /// libcurl may find only within an attempt that the connection of a handle is gone.
    private func connectionLimit(retrySecondsLeft left: Double?) -> Double? {
        let isSSH = options.connector != nil
        let left = left ?? (isSSH && hasAnswered ? options.retrySeconds : nil)
        guard let left else { return isSSH ? nil : options.connectSeconds }
        return min(isSSH ? Self.loginSeconds : options.connectSeconds, max(1, left.rounded(.up)))
    }

    /// The error if this process has run out of descriptors.
    private static var shortage: IOError? {
        Descriptors.shortage.map {
            IOError.transport($0.description.lowercased(), advice: Descriptors.advice)
        }
    }

    private enum TransferEnd {
        case code(CURLcode)
        case fulfilled
        case silent
        case lost
        case slow
        case endless
        case aborted
    }

    private func run(_ request: HTTPRequest) -> TransferEnd {
        guard curl_multi_add_handle(multi, easy) == CURLM_OK else {
            return .code(CURLE_OUT_OF_MEMORY)
        }
        // Removing an unfinished transfer closes its connection.
        defer { curl_multi_remove_handle(multi, easy) }
        var watch = ActivityWatch()
        let start = ContinuousClock.now
        answerSeconds = nil
        while true {
            var running: Int32 = 0
            let result = curl_multi_perform(multi, &running)
            guard result == CURLM_OK else { return .code(CURLE_OUT_OF_MEMORY) }
            if answerSeconds == nil, transfer.received > 0 {
                let connecting = Double(offset(CURLINFO_PRETRANSFER_TIME_T)) / 1_000_000
                answerSeconds = max(0, (ContinuousClock.now - start) / .seconds(1) - connecting)
            }
            if running == 0 { return .code(finalCode()) }
            if transfer.isAborted() { return .aborted }
            // It reports an outage. Only the connector ends by it.
            _ = transfer.hasGivenUp()
            if transfer.isFulfilled() { return .fulfilled }
            let isExcused = !isConnected || request.mayWait?() == true
            if isExcused {
                transfer.pace = Pace(patience: request.silence, bytes: carried(request))
            }
            if isExcused
                || watch.sees(
                    bytes: transfer.received + uploaded, kernelBytes: transfer.kernelBytes)
            {
                transfer.lastActivity = .now
            }
            let isSlow = transfer.pace.isTooSlow(
                bytes: carried(request), patience: request.silence, rate: request.leastRate)
            if transfer.isFramingEndless { return .endless }
            if isSlow { return .slow }
            let idle = ContinuousClock.now - transfer.lastActivity
            let left = .seconds(request.silence) - idle
            guard left > .zero else { return .silent }
            if idle >= .seconds(Self.lossSeconds), transfer.isUnanswered { return .lost }
            let wait = Int32(min(left, Self.pollInterval) / .milliseconds(1)) + 1
            curl_multi_poll(multi, nil, 0, wait, nil)
        }
    }

    private func finalCode() -> CURLcode {
        var left: Int32 = 0
        while let note = curl_multi_info_read(multi, &left) {
            if note.pointee.msg == CURLMSG_DONE { return note.pointee.data.result }
        }
        return CURLE_OUT_OF_MEMORY
    }

    private func outcome(
        of end: TransferEnd, _ request: HTTPRequest, _ body: any ResponseSink
    ) -> AttemptResult {
        switch (end, transfer.stop) {
        case (.aborted, _), (_, .cancelled?):
            return .final(.cancelled)
        case (.fulfilled, _): return answer
        case (.silent, _):
            return .lost(.transport(transfer.silenceReason(request.silence)))
        case (.lost, _):
            return .lost(.transport(CurlTransfer.lossReason))
        case (.slow, _):
            return .lost(.transport(transfer.slownessReason))
        case (.endless, _):
            return .final(.transport(transfer.framingReason))
        case (_, .headers?):
            return .final(
                .transport(
                    "the answer has more than \(CurlTransfer.headerLimit) bytes of headers"))
        case (_, .memory?):
            return .final(.noMemory)
        case (_, .tooLarge?):
            // The answer is a proxy's page about a temporary state, so only its status matters.
            if RetryPolicy.isPassing(response) { return answer }
            return .final(.transport("the answer is larger than \(body.limit) bytes"))
        case (.code(CURLE_OK), _):
            guard transfer.isHeadComplete, response.status >= 200 else {
                // libcurl reports success for an incomplete head.
                return .lost(.transport("the answer is incomplete: its head ends early"))
            }
            return answer
        case (.code(let code), _):
            if let error = transfer.connectError {
                return error.kind == .network ? .notConnected(error) : .final(error)
            }
            // libcurl reports a failed socket as a failed connection, and a failed lookup as an
            // unknown name.
            if !isConnected, let shortage = Self.shortage { return .notConnected(shortage) }
            return CurlFailure(
                code: code, message: String(cString: message),
                errno: Int32(long(CURLINFO_OS_ERRNO)),
                connectSeconds: connectSeconds ?? options.connectSeconds, isConnected: isConnected,
                verifyResult: long(CURLINFO_SSL_VERIFYRESULT), trust: options.trust
            ).outcome
        }
    }

    private var answer: AttemptResult {
        let seconds = offset(CURLINFO_RETRY_AFTER)
        return .answer(response, retryAfter: seconds > 0 ? Double(seconds) : nil)
    }
}

extension CurlHandle {
    private var response: HTTPResponse {
        var type: UnsafePointer<CChar>?
        cc_getinfo_string(easy, CURLINFO_CONTENT_TYPE, &type)
        return HTTPResponse(
            status: long(CURLINFO_RESPONSE_CODE),
            contentType: type.map { String(cString: $0) } ?? "")
    }

    /// Whether the connection is complete, including TLS.
    private var isConnected: Bool { offset(CURLINFO_PRETRANSFER_TIME_T) > 0 }

    /// Bytes of the request's body that the kernel has accepted.
    private var uploaded: Int { offset(CURLINFO_SIZE_UPLOAD_T) }

    /// Bytes of this transfer that are progress, as far as the kernel counts them.
    private func carried(_ request: HTTPRequest) -> UInt64 {
        transfer.progress(known: transfer.received + uploaded, rate: request.leastRate)
    }

    private func sentBytes(_ request: HTTPRequest) -> Int {
        let head = long(CURLINFO_REQUEST_SIZE)
        // A body that libcurl sends together with the head also counts in the request's size
        // (`MAX_INITIAL_POST_SIZE` in lib/http.h).
        let isTogether = !transfer.givesBody && request.bodyCount < 64 << 10
        return isTogether ? max(head, uploaded) : head + uploaded
    }

    private func long(_ info: CURLINFO) -> Int {
        var value = 0
        cc_getinfo_long(easy, info, &value)
        return value
    }

    private func offset(_ info: CURLINFO) -> Int {
        var value: curl_off_t = 0
        cc_getinfo_off_t(easy, info, &value)
        return Int(value)
    }
}
