// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import NIOCore
internal import NIOHTTP1
internal import WireProtocol

/// Shows what the server does: a page, a record that the page asks for, and metrics.
///
/// A client sees only sessions of exports that its token lets it see.
final class StatusService: RouteFamily {
    let exports: ExportTable
    let sessions: SessionTable
    let connections: Connections
    let version: String

    init(
        _ exports: ExportTable, _ sessions: SessionTable, _ connections: Connections,
        version: String
    ) {
        self.exports = exports
        self.sessions = sessions
        self.connections = connections
        self.version = version
    }

    func route(_ target: String) -> (any ServedRoute)? {
        var path = target.prefix { $0 != "?" && $0 != "#" }
        if path.count > 1 && path.last == "/" { path.removeLast() }
        return StatusRoute.Path(rawValue: String(path)).map { StatusRoute(path: $0, service: self) }
    }

    func forgetOld() {}

    fileprivate func answer(_ path: StatusRoute.Path, _ grant: Grant) -> Response {
        switch path {
        case .page: return StatusPage.response(needsToken: false)
        case .metrics:
            var response = Response(.ok)
            response.headers.add(name: "Content-Type", value: MetricsText.mediaType)
            response.body = .bytes(ByteBuffer(string: metrics(for: grant)))
            return response
        case .status: return Response(.ok, json: status(for: grant))
        }
    }

    private func status(for grant: Grant) -> StatusRecord {
        let (open, ended) = sessions.state.withLock { (Array($0.sessions.values), $0.ended) }
        return StatusRecord(
            version: version,
            sessions: open.filter { grant.limit($0.permission.found) != nil }
                .sorted { $0.start < $1.start }.map { StatusRecord.Run($0) },
            runs: ended.runs.reversed().filter { grant.limit($0.found) != nil }
                .map { StatusRecord.Run($0) })
    }
}

struct StatusRoute: ServedRoute {
    enum Path: String {
        case page = "/"
        case metrics = "/metrics"
        case status = "/v1/status"
    }
    let path: Path
    let service: StatusService

    var methods: [String] { ["GET", "HEAD"] }
    var bodyLimit: Int { 0 }
    var mediaType: String? { nil }
    var isOfSession: Bool { false }
    var isFirstQuestion: Bool { false }
    var subject: String? { nil }
    var mayTransfer: (@Sendable (Request) -> Bool)? { nil }
    func answerCost(_ size: Int) -> Int { 0 }
    func rejection(_ grant: Grant) -> Response? { nil }

    var publicAnswer: Response? {
        path == .page ? StatusPage.response(needsToken: true) : nil
    }

    func answer(
        _ request: Request, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> Response {
        var response = service.answer(path, request.grant)
        response.headers.replaceOrAdd(name: "Cache-Control", value: "no-store")
        response.headers.replaceOrAdd(name: "X-Content-Type-Options", value: "nosniff")
        return response
    }

    func adapt(_ response: inout Response) {}
}
