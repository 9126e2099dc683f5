// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import DeviceProbe
internal import Digests
internal import LinuxIO
package import WireProtocol

/// A server that a URL names, and what it is asked outside of a session.
package final class RemoteServer: Sendable {
    package struct Options: Sendable {
        /// Bytes a second, all connections together; `nil` for no limit.
        package var bytesPerSecond: Int?
        /// Seconds that a server which went away is waited for.
        package var retrySeconds = 30.0
        /// What shows the server who asks; `nil` for nothing.
        package var token: String?
        /// How the server is known, and how this side is, in TLS.
        package var trust = ServerTrust()
        /// How a server is started where the URL is one of ssh.
        package var ssh = SSHSettings()
        /// Whether a 500 that does not say what is wrong may pass.
        var repeats500 = true
        /// What is told with `-v`.
        package var log: @Sendable (String) -> Void
        /// Whether the user has had enough.
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
    /// Tells what only those want to know who asked for more.
    var note: @Sendable (String) -> Void { options.log }

    /// Prepares to talk to a server; nothing is sent yet.
    ///
    /// - Parameters:
    ///   - location: scheme, host and port of it count.
    ///   - options: how.
    /// - Throws: when libcurl cannot be had.
    package init(_ location: RemoteLocation, _ options: Options) throws(ProbeError) {
        self.location = location
        self.options = options
        let isSSH = location.scheme == .ssh
        var transportOptions = HTTPTransport.Options(
            // Of ssh only for libcurl, which does not connect there.
            base: isSSH ? "http://127.0.0.1" : location.server, log: options.log,
            isCancelled: options.isCancelled)
        if isSSH { transportOptions.connector = try Self.connector(location, options) }
        transportOptions.retrySeconds = options.retrySeconds
        transportOptions.bytesPerSecond = options.bytesPerSecond
        transportOptions.token = options.token
        transportOptions.repeats500 = options.repeats500
        transportOptions.trust = options.trust
        do throws(HTTPError) { transport = try HTTPTransport(transportOptions) } catch {
            throw .failed(.network(location.text, "connect", reason: error.reason))
        }
    }

    private static func connector(
        _ location: RemoteLocation, _ options: Options
    ) throws(ProbeError) -> SSHConnector {
        do throws(DigestError) {
            let command = SSHCommand(location, options.ssh, group: try SSHCommand.newGroup())
            return SSHConnector(command, note: options.log)
        } catch {
            throw .failed(IOError(location.text, error.operation, reason: error.reason))
        }
    }

    /// Whether a sign of life costs no new connection, or is needed nevertheless.
    ///
    /// Where no connection is idle, requests are in work, which are signs of life themselves.
    var canTouch: Bool { location.scheme != .ssh || transport.hasIdleConnection }

    /// Bytes that went over all connections so far, headers included.
    package var traffic: (sent: Int, received: Int) { transport.traffic }

    /// Everything that it exports.
    package func exports() throws(ProbeError) -> ExportList {
        try json(HTTPRequest(.get, Route.devices.path), "list", ExportList.self)
    }

    /// Makes sure that it knows of making, cutting and keeping logical volumes; one that does not
    /// would leave it undone.
    func requireVolumes() throws(ProbeError) {
        let record = try json(HTTPRequest(.get, Route.info.path), "open", ServerRecord.self)
        guard record.features.contains(SessionRequest.volumes) else {
            throw .failed(
                .network(
                    location.text, "open",
                    reason: "the server, version \(record.version), knows nothing of --shrink, "
                        + "--create and --snapshot-target",
                    advice: "A newer blkferry there does."))
        }
    }

    /// One of its exports.
    ///
    /// - Parameter selector: as in a URL.
    /// - Returns: what the server tells of it.
    /// - Throws: when there is none, or the server cannot be asked.
    package func export(_ selector: String) throws(ProbeError) -> ExportRecord {
        try json(HTTPRequest(.get, Route.device(selector).path), "list", ExportRecord.self)
    }

    /// Asks for JSON.
    ///
    /// - Parameters:
    ///   - request: what is asked.
    ///   - operation: for messages.
    ///   - type: what the answer has to be.
    /// - Returns: the answer.
    /// - Throws: what the server answers instead, and the errors of the network.
    func json<Value: Decodable>(
        _ request: HTTPRequest, _ operation: String, _ type: Value.Type
    ) throws(ProbeError) -> Value {
        let body = ResponseBody(limit: Limits.answer)
        let response = try send(request, operation, into: body)
        guard response.contentType.hasPrefix(MediaType.json) else {
            throw .failed(Self.noBlkferry(location.text, operation))
        }
        do throws(WireError) { return try WireJSON.decode(type, from: body.bytes) } catch {
            throw .failed(
                .network(
                    location.text, operation,
                    reason: "the server's answer cannot be understood: \(error.reason)"))
        }
    }

    /// Sends a request that has to succeed.
    ///
    /// - Throws: what the answer's problem says: a refusal, an error of the device; an error of the
    ///   network for all else.
    @discardableResult
    func send(
        _ request: HTTPRequest, _ operation: String, into body: ResponseBody
    ) throws(ProbeError) -> HTTPResponse {
        let response: HTTPResponse
        do throws(HTTPError) { response = try transport.send(request, into: body) } catch {
            throw .failed(Self.error(error, location.text, operation))
        }
        if (200..<300).contains(response.status) { return response }
        guard response.contentType.hasPrefix(MediaType.problem),
            let problem = try? WireJSON.decode(Problem.self, from: body.bytes)
        else {
            guard response.status >= 500 else {
                throw .failed(Self.noBlkferry(location.text, operation))
            }
            throw .failed(
                .network(
                    location.text, operation, reason: "the server answers \(response.status)"))
        }
        throw Self.error(problem, location.text, operation)
    }

    static func error(
        _ error: HTTPError, _ name: String, _ operation: String
    ) -> IOError {
        var result = IOError.network(
            name, operation, reason: error.reason, advice: error.advice)
        result.isUnauthorized = error.kind == .untrusted
        return result
    }

    static func noBlkferry(_ name: String, _ operation: String) -> IOError {
        .network(
            name, operation, reason: "what answers there is not a blkferry server",
            advice: "Start one there: blkferry serve")
    }

    /// What a problem means for the user.
    private static func error(
        _ problem: Problem, _ name: String, _ operation: String
    ) -> ProbeError {
        if let refusal = problem.refusal(of: name) { return .refused(refusal) }
        if let error = problem.deviceError(of: name) { return .failed(error) }
        var error = IOError.network(name, operation, reason: problem.detail, advice: problem.advice)
        switch problem.kind {
        case .noSession: error.operation = noSession
        case .corrupted: error.operation = corrupted
        case .unauthorized: error.isUnauthorized = true
        case .digest:
            if let candidates = problem.candidates {
                let ours = Set(DigestMethod.available().map(\.name))
                let both = candidates.filter { ours.contains($0) }
                error.advice = "Both sides have \(both.joined(separator: ", "))."
            }
        default: break
        }
        return .failed(error)
    }

    /// Operations of errors that are not the user's.
    static let noSession = "find session"
    static let corrupted = "transfer"
}
