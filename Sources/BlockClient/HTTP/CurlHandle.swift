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
    /// Bytes that libcurl receives at once; it accepts up to 10 MiB, but would hold them
    /// permanently.
    private static let receiveBuffer = 1 << 20
    /// Bytes that libcurl sends at once, libcurl's maximum.
    private static let sendBuffer = 2 << 20
    /// Interval of the checks for cancellation and for activity.
    private static let pollInterval = Duration.milliseconds(200)

    /// libcurl has an unmanaged pointer to it, which it uses only until `deinit`.
    let transfer: CurlTransfer
    private let options: HTTPTransport.Options
    private let easy: UnsafeMutableRawPointer
    private let multi: UnsafeMutableRawPointer
    private let message: UnsafeMutablePointer<CChar>
    private var headers: UnsafeMutablePointer<curl_slist>?

    /// Makes a handle without connecting; throws if memory runs out or this libcurl lacks an
    /// option.
    init(_ options: HTTPTransport.Options, _ limiter: RateLimiter?) throws(IOError) {
        guard let easy = curl_easy_init() else { throw Self.shortage ?? .noMemory }
        guard let multi = curl_multi_init() else {
            curl_easy_cleanup(easy)
            throw Self.shortage ?? .noMemory
        }
        self.options = options
        self.easy = easy
        self.multi = multi
        message = .allocate(capacity: Int(CURL_ERROR_SIZE))
        message.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
        transfer = CurlTransfer(
            limiter: limiter, isCancelled: options.isCancelled, grace: options.graceSeconds)
        transfer.connector = options.connector
        try setUp()
        if options.connector != nil { try setUpConnector() }
    }

    deinit {
        curl_easy_cleanup(easy)
        curl_multi_cleanup(multi)
        curl_slist_free_all(headers)
        message.deallocate()
    }

    func attempt(
        _ request: HTTPRequest, into body: any ResponseSink
    ) throws(IOError) -> (outcome: AttemptResult, sent: Int, received: Int) {
        transfer.begin(request, into: body)
        defer { transfer.end() }
        message.pointee = 0
        try prepare(request)
        let end = run(request)
        let sent = sentBytes(request)
        transfer.limiter?.charge(max(0, sent - uploaded))
        return (outcome(of: end, request, body), sent, transfer.received)
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
        while true {
            var running: Int32 = 0
            let result = curl_multi_perform(multi, &running)
            guard result == CURLM_OK else { return .code(CURLE_OUT_OF_MEMORY) }
            if running == 0 { return .code(finalCode()) }
            if transfer.isAborted() { return .aborted }
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
            let left = .seconds(request.silence) - (ContinuousClock.now - transfer.lastActivity)
            guard left > .zero else { return .silent }
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
                connectSeconds: options.connectSeconds, isConnected: isConnected,
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

extension CurlHandle {
    /// Sets the options that all requests share.
    private func setUp() throws(IOError) {
        let own = Unmanaged.passUnretained(transfer).toOpaque()
        try check(cc_setopt_pointer(easy, CURLOPT_ERRORBUFFER, message))
        try set(CURLOPT_NOSIGNAL, 1)
        try set(CURLOPT_PROTOCOLS_STR, "http,https")
        try check(options.trust.apply(to: easy))
        try set(CURLOPT_HTTP_VERSION, Int(CURL_HTTP_VERSION_1_1))
        try set(CURLOPT_HTTP09_ALLOWED, 0)
        try set(CURLOPT_FOLLOWLOCATION, 0)
        // An empty value keeps libcurl from reading the environment.
        try set(CURLOPT_PROXY, options.proxy?.url ?? "")
        try set(CURLOPT_NOPROXY, "")
        if let socket = options.socket { try set(CURLOPT_UNIX_SOCKET_PATH, socket) }
        // Headers for the server, such as the token, must not reach the proxy.
        try set(CURLOPT_HEADEROPT, Int(CURLHEADER_SEPARATE))
        try set(CURLOPT_PATH_AS_IS, 1)
        // An unrequested content coding must not be decoded.
        try set(CURLOPT_HTTP_CONTENT_DECODING, 0)
        try set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1)
        try set(CURLOPT_TCP_NODELAY, 1)
        try set(CURLOPT_TCP_KEEPALIVE, 1)
        try set(CURLOPT_CONNECTTIMEOUT_MS, max(1, Int(options.connectSeconds * 1000)))
        try set(CURLOPT_USERAGENT, options.userAgent)
        try check(cc_setopt_write(easy, CURLOPT_HEADERFUNCTION, CurlTransfer.onHeader))
        try check(cc_setopt_pointer(easy, CURLOPT_HEADERDATA, own))
        try check(cc_setopt_write(easy, CURLOPT_WRITEFUNCTION, CurlTransfer.onBody))
        try check(cc_setopt_pointer(easy, CURLOPT_WRITEDATA, own))
        try check(cc_setopt_read(easy, CURLOPT_READFUNCTION, CurlTransfer.onRead))
        try check(cc_setopt_pointer(easy, CURLOPT_READDATA, own))
        try check(cc_setopt_seek(easy, CURLOPT_SEEKFUNCTION, CurlTransfer.onSeek))
        try check(cc_setopt_pointer(easy, CURLOPT_SEEKDATA, own))
        try check(cc_setopt_sockopt(easy, CURLOPT_SOCKOPTFUNCTION, CurlTransfer.onOpen))
        try check(cc_setopt_pointer(easy, CURLOPT_SOCKOPTDATA, own))
        try check(cc_setopt_closesocket(easy, CURLOPT_CLOSESOCKETFUNCTION, CurlTransfer.onClose))
        try check(cc_setopt_pointer(easy, CURLOPT_CLOSESOCKETDATA, own))
        if let limiter = transfer.limiter {
            try set(CURLOPT_BUFFERSIZE, min(max(limiter.portion, 16 << 10), Self.receiveBuffer))
            try set(CURLOPT_UPLOAD_BUFFERSIZE, min(max(limiter.portion, 16 << 10), Self.sendBuffer))
        } else {
            try set(CURLOPT_BUFFERSIZE, Self.receiveBuffer)
            try set(CURLOPT_UPLOAD_BUFFERSIZE, Self.sendBuffer)
        }
        guard cc_multi_setopt_long(multi, CURLMOPT_MAXCONNECTS, 1) == CURLM_OK else {
            throw .transport("libcurl: no limit of connections")
        }
    }

    /// Lets the connector make the connections, without a timeout of libcurl.
    private func setUpConnector() throws(IOError) {
        let own = Unmanaged.passUnretained(transfer).toOpaque()
        try check(cc_setopt_opensocket(easy, CURLOPT_OPENSOCKETFUNCTION, CurlTransfer.onConnect))
        try check(cc_setopt_pointer(easy, CURLOPT_OPENSOCKETDATA, own))
        try check(cc_setopt_prereq(easy, CURLOPT_PREREQFUNCTION, CurlTransfer.onReady))
        try check(cc_setopt_pointer(easy, CURLOPT_PREREQDATA, own))
        try set(CURLOPT_CONNECTTIMEOUT_MS, 86_400_000)
    }

    private func prepare(_ request: HTTPRequest) throws(IOError) {
        try set(CURLOPT_URL, options.base + request.path)
        // A new ssh connection may ask for a passphrase. With ssh a request may be sent twice.
        try set(CURLOPT_FRESH_CONNECT, request.isRetried || options.connector != nil ? 0 : 1)
        try setHeaders(request)
        try set(CURLOPT_CUSTOMREQUEST, nil)
        switch request.method {
        case .get:
            try set(CURLOPT_HTTPGET, 1)
        case .head:
            try set(CURLOPT_HTTPGET, 1)
            try set(CURLOPT_NOBODY, 1)
        case .delete:
            try set(CURLOPT_HTTPGET, 1)
            try set(CURLOPT_CUSTOMREQUEST, request.method.rawValue)
        case .post:
            try set(CURLOPT_POST, 1)
            try check(
                cc_setopt_off_t(
                    easy, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(request.bodyCount)))
            // Without POSTFIELDS libcurl calls the read callback, which applies the rate limit.
            let body = request.body?.baseAddress ?? UnsafeRawPointer(message)
            let memory = transfer.givesBody ? nil : body
            try check(cc_setopt_pointer(easy, CURLOPT_POSTFIELDS, memory))
        }
    }

    /// Sets the headers, and removes those that libcurl would add.
    private func setHeaders(_ request: HTTPRequest) throws(IOError) {
        var lines = ["Accept:"]
        if let token = options.token, !request.isAnonymous {
            lines.append("Authorization: Bearer \(token)")
        }
        if request.method == .post {
            lines += ["Expect:", "Content-Type:" + (request.contentType.map { " \($0)" } ?? "")]
        }
        var list: UnsafeMutablePointer<curl_slist>?
        for line in lines {
            guard let longer = curl_slist_append(list, line) else {
                curl_slist_free_all(list)
                throw .noMemory
            }
            list = longer
        }
        let result = cc_setopt_pointer(easy, CURLOPT_HTTPHEADER, list)
        curl_slist_free_all(headers)
        headers = list
        try check(result)
    }

    private func set(_ option: CURLoption, _ value: Int) throws(IOError) {
        try check(cc_setopt_long(easy, option, value))
    }

    private func set(_ option: CURLoption, _ value: String?) throws(IOError) {
        try check(cc_setopt_string(easy, option, value))
    }

    private func check(_ code: CURLcode) throws(IOError) {
        guard code != CURLE_OUT_OF_MEMORY else { throw .noMemory }
        guard code == CURLE_OK else {
            throw .transport("libcurl: \(String(cString: curl_easy_strerror(code)))")
        }
    }
}
