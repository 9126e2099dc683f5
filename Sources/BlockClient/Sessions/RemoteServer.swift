// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
package import LinuxIO
package import WireProtocol
package import Zstandard

/// A server that a URL names, and the requests outside of a session.
package final class RemoteServer: Sendable {
    package struct Options: Sendable {
        /// Bytes a second of all connections together; `nil` for no limit.
        package var bytesPerSecond: Int?
        /// Seconds for which requests are retried after the server became unreachable; 0 for no
        /// retries.
        package var retrySeconds = 30.0
        /// Connections that are made while a session is opened, on a long line only.
        package var connectionsAhead = 0
        package var compression = CompressionMode.auto
        /// `false` as if libzstd were missing, for tests.
        package var findsZstd = true
        package var token: String?
        package var trust = ServerTrust()
        package var ssh = SSHSettings()
        /// Directory of the files of `SessionClaim`; `nil` for none.
        package var claims: String?
        /// Whether a 500 without a problem body is retried.
        var repeats500 = true
        /// Called with messages for `-v`.
        package var log: @Sendable (String) -> Void
        /// Called with one line when the server has been unreachable for some seconds, and when it
        /// answers again.
        package var reportWait: @Sendable (String) -> Void = { _ in }
        package var isCancelled: @Sendable () -> Bool

        package init(
            log: @escaping @Sendable (String) -> Void = { _ in },
            isCancelled: @escaping @Sendable () -> Bool = { false }
        ) {
            self.log = log
            self.isCancelled = isCancelled
        }
    }

    let location: RemoteLocation
    let options: Options
    let transport: HTTPTransport
    private let proxy: Proxy?
    var note: @Sendable (String) -> Void { options.log }

    /// Prepares the transport without sending anything; throws if libcurl cannot be loaded or the
    /// proxy cannot be used.
    package init(_ location: RemoteLocation, _ options: Options) throws(IOError) {
        self.location = location
        self.options = options
        let isSSH = location.scheme == .ssh
        var transportOptions = HTTPTransport.Options(
            base: Self.base(of: location), log: options.log, isCancelled: options.isCancelled)
        transportOptions.name = location.text
        transportOptions.socket = location.socket
        if isSSH { transportOptions.connector = try Self.connector(location, options) }
        transportOptions.retrySeconds = options.retrySeconds
        transportOptions.report = {
            options.reportWait($0.text(of: location.server, limit: options.retrySeconds))
        }
        transportOptions.bytesPerSecond = options.bytesPerSecond
        transportOptions.token = options.token
        transportOptions.repeats500 = options.repeats500
        transportOptions.trust = options.trust
        proxy = Proxy(for: location)
        transportOptions.proxy = proxy
        if let proxy {
            try Self.check(proxy, location)
            options.log("\(location.server) is reached through the proxy \(proxy.description)")
            try Self.keepToken(options, location, from: proxy)
        }
        do throws(IOError) { transport = try HTTPTransport(transportOptions) } catch {
            throw .network(location.text, "connect", reason: error.reason)
        }
    }

    private static func base(of location: RemoteLocation) -> String {
        switch location.scheme {
        case .http, .https: location.server
        // libcurl needs some address, but does not connect to it.
        case .ssh: "http://127.0.0.1"
        case .unix: "http://\(location.host)"
        }
    }

    /// Throws if libcurl cannot use a proxy.
    private static func check(_ proxy: Proxy, _ location: RemoteLocation) throws(IOError) {
        guard let fault = proxy.fault else { return }
        throw .network(
            location.text, "connect",
            reason: "the proxy that \(proxy.variable) names cannot be used: \(fault)",
            advice: "Write \(proxy.variable)=http://HOST:PORT; in a user's name or password "
                + "write / as %2F, @ as %40, ? as %3F and # as %23.")
    }

    /// Throws if a proxy would see the token; with https it sees nothing of the request.
    private static func keepToken(
        _ options: Options, _ location: RemoteLocation, from proxy: Proxy
    ) throws(IOError) {
        guard options.token != nil, location.scheme == .http else { return }
        var error = IOError.network(
            location.text, "connect",
            reason: "the token would go to the proxy \(proxy.description) in clear",
            advice: "Use https, or no_proxy=\(location.host) where no proxy is needed.")
        error.kind = .unauthorized
        throw error
    }

    /// Whether others can read a token on its way to the server; it is not sent where a proxy would
    /// see it.
    package static func exposesToken(_ location: RemoteLocation) -> Bool {
        location.scheme == .http && !Proxy.isLocal(location.host) && Proxy(for: location) == nil
    }

    private static func connector(
        _ location: RemoteLocation, _ options: Options
    ) throws(IOError) -> SSHConnector {
        let command = SSHCommand(location, options.ssh, group: try SSHCommand.newGroup())
        return SSHConnector(command, note: options.log)
    }

    /// Whether a keepalive costs no new connection, or is needed even so.
    ///
    /// An ssh transport without an idle connection has requests in progress, which keep the session
    /// alive.
    var canTouch: Bool { location.scheme != .ssh || transport.hasIdleConnection }

    /// Bytes over all connections so far, including headers.
    package var traffic: (sent: Int, received: Int) { transport.traffic }

    package func exports() throws(IOError) -> ExportList {
        let list = try json(HTTPRequest(.get, Route.devices.path), "list", ExportList.self)
        do throws(WireError) { try list.check() } catch {
            throw Self.invalid(error, location.text, "list")
        }
        return list
    }

    private func check(_ record: ExportRecord) throws(IOError) {
        do throws(WireError) { try record.check() } catch {
            throw Self.invalid(error, location.text, "list")
        }
    }

    /// Throws if the server does not know the options for logical volumes; an older server would
    /// ignore them.
    func requireVolumes() throws(IOError) {
        let record = try json(HTTPRequest(.get, Route.info.path), "open", ServerRecord.self)
        guard record.features.contains(SessionRequest.volumes) else {
            throw .network(
                location.text, "open",
                reason:
                    "the server, version \(record.version.shortened), knows nothing of --shrink, "
                    + "--create and --snapshot-target",
                advice: "Install a newer blkferry there.")
        }
    }

    /// The level of zstd that a session asks for; `nil` for no compression.
    ///
    /// - Throws: if the user wants compression, and this side or the server has no libzstd.
    func zstdLevel() throws(IOError) -> Int? {
        guard let level = options.compression.level else { return nil }
        if let fault = options.findsZstd ? Zstd.fault : "libzstd.so.1 is missing" {
            guard options.compression == .auto else {
                throw .network(
                    location.text, "open", reason: "libzstd cannot be loaded: \(fault)",
                    advice: "Install libzstd here, or leave --compress zstd out.")
            }
            note("payloads are not compressed: \(fault)")
            return nil
        }
        guard options.compression != .auto else { return level }
        let record = try json(HTTPRequest(.get, Route.info.path), "open", ServerRecord.self)
        guard record.features.contains(SessionRequest.compression) else {
            throw .network(
                location.text, "open",
                reason:
                    "the server, version \(record.version.shortened), cannot compress with zstd",
                advice: "Install a newer blkferry or libzstd there, or leave --compress zstd out.")
        }
        return level
    }

    /// Makes connections in other threads if the line is long, so that the threads of a run, which
    /// all begin at once, need no round trip for theirs.
    func connectAhead() {
        guard transport.longRoundTrip != nil else { return }
        _ = Threads.start(count: options.connectionsAhead, orInline: false) { [transport] _ in
            var request = HTTPRequest(.get, Route.info.path, silence: 10)
            request.isAnonymous = true
            transport.connectAhead(request, into: ResponseBody(limit: Limits.json))
        }
    }

    package func export(_ selector: String) throws(IOError) -> ExportRecord {
        let record = try json(
            HTTPRequest(.get, Route.device(selector).path), "list", ExportRecord.self)
        try check(record)
        return record
    }

    func noBlkferry(_ operation: String, _ response: HTTPResponse) -> IOError {
        let status = "HTTP \(response.status)\(transport.way)"
        return .network(
            location.text, operation,
            reason: "no blkferry server answers there: \(status)",
            advice: proxy == nil
                ? "Start one there: blkferry serve"
                : "To connect without the proxy, set no_proxy=HOST.")
    }

    /// The error for an answer that a blkferry server would not give.
    static func invalid(_ error: WireError, _ name: String, _ operation: String) -> IOError {
        .network(
            name, operation, reason: "invalid response from the server: \(error.reason.shortened)")
    }

    static func error(
        _ problem: Problem, _ name: String, _ operation: String
    ) -> IOError {
        if let refusal = problem.refusal(of: name) { return refusal }
        if let error = problem.deviceError(of: name) { return error }
        var error = IOError.network(name, operation, reason: problem.detail, advice: problem.advice)
        switch problem.kind {
        case .noSession: error.kind = .noSession
        case .corrupted: error.kind = .corrupted
        case .unauthorized: error.kind = .unauthorized
        case .digest:
            if let candidates = problem.candidates {
                let both = DigestMethod.available().map(\.name).filter { candidates.contains($0) }
                error.advice = "Both sides have \(both.joined(separator: ", "))."
            }
        default: break
        }
        return error
    }
}
