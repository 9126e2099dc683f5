// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CCurl
internal import LinuxIO

/// The options of libcurl.
extension CurlHandle {
    /// Bytes that libcurl sends and receives at once.
    ///
    /// libcurl copies the data into such a buffer, and the kernel copies it again. With 2 MiB the
    /// kernel finds less of it in the processor's cache, and a push of a whole device takes at least
    /// 10 % longer.
    private static let buffer = 512 << 10
    /// The same on a long line, which has more connections.
    private static let bufferOnLongLine = 128 << 10
    /// Seconds without a packet before the kernel sends a keepalive, and between two of them.
    ///
    /// They also keep NATs from forgetting the connection while a server flushes. Those of mobile
    /// networks may do so after half a minute.
    private static let keepalive = (idle: 20, interval: 5)

    /// Sets the options that all requests share.
    func setUp() throws(IOError) {
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
        try set(CURLOPT_TCP_KEEPIDLE, Self.keepalive.idle)
        try set(CURLOPT_TCP_KEEPINTVL, Self.keepalive.interval)
        // Otherwise the end of an attempt waits for its name lookup, which takes up to half a
        // minute without a network. libcurl before 7.87 lacks the option.
        cc_setopt_long(easy, CURLOPT_QUICK_EXIT, 1)
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
        var buffer = isOnLongLine ? Self.bufferOnLongLine : Self.buffer
        if let portion = transfer.limiter?.portion { buffer = min(max(portion, 16 << 10), buffer) }
        try set(CURLOPT_BUFFERSIZE, buffer)
        try set(CURLOPT_UPLOAD_BUFFERSIZE, buffer)
        guard cc_multi_setopt_long(multi, CURLMOPT_MAXCONNECTS, 1) == CURLM_OK else {
            throw .transport("libcurl: no limit of connections")
        }
    }

    /// Lets the connector make the connections.
    func setUpConnector() throws(IOError) {
        let own = Unmanaged.passUnretained(transfer).toOpaque()
        try check(cc_setopt_opensocket(easy, CURLOPT_OPENSOCKETFUNCTION, CurlTransfer.onConnect))
        try check(cc_setopt_pointer(easy, CURLOPT_OPENSOCKETDATA, own))
        try check(cc_setopt_prereq(easy, CURLOPT_PREREQFUNCTION, CurlTransfer.onReady))
        try check(cc_setopt_pointer(easy, CURLOPT_PREREQDATA, own))
    }

    func prepare(_ request: HTTPRequest) throws(IOError) {
        try set(CURLOPT_URL, options.base + request.path)
        // A connector has its own timeout, or none.
        let seconds = options.connector == nil ? connectSeconds : nil
        try set(CURLOPT_CONNECTTIMEOUT_MS, max(1, Int((seconds ?? 86_400) * 1000)))
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
