// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import WireProtocol

struct BlkferryRoute: ServedRoute {
    let route: Route
    let service: BlkferryService

    /// Bytes of the extent table and the digest in the response to a read request.
    private static let tableCost = 256 << 10

    var methods: [String] { route.methods }

    var bodyLimit: Int {
        switch route {
        case .sessions, .commit: Limits.json
        // Each block may be a region and a range of its own.
        case .compare:
            CompareRequest.headerSize(ranges: Limits.blocks) + (Limits.blocks + 1) * Limits.digest
        case .read: ExtentFrame.tableSize(count: Limits.extents) + Limits.digest
        case .write: Limits.body
        case .info, .devices, .device, .content, .session: 0
        }
    }

    var mediaType: String? {
        switch route {
        case .sessions, .commit: MediaType.json
        case .compare, .read, .write: MediaType.frames
        case .info, .devices, .device, .content, .session: nil
        }
    }

    var isOfSession: Bool {
        switch route {
        case .session, .compare, .read, .write, .commit: true
        case .info, .devices, .device, .content, .sessions: false
        }
    }

    var isFirstQuestion: Bool { route == .info }

    var subject: String? {
        switch route {
        case .info: nil
        case .devices: "devices"
        case .device(let name), .content(let name), .sessions(let name): plainSpelling(of: name)
        case .session(let id), .compare(let id), .read(let id), .write(let id), .commit(let id):
            service.sessions.name(of: id).map { "session of \(plainSpelling(of: $0))" }
        }
    }

    var mayTransfer: (@Sendable (Request) -> Bool)? { nil }

    func answerCost(_ size: Int) -> Int {
        switch route {
        case .read: Limits.payload + Self.tableCost
        // For each digest of a region the answer has at most 128 digests of blocks, with zero marks
        // and an index; a map has 16 KiB.
        case .compare: max(32 << 10, min(150 * size, Limits.blocks * 64 + Self.tableCost))
        // A streamed response takes memory later, once the request is allowed.
        default: 0
        }
    }

    func rejection(_ grant: Grant) -> Response? {
        switch route {
        case .compare(let id), .read(let id), .write(let id), .commit(let id):
            guard let mode = service.sessions.mode(of: id, grant) else {
                return Response(SessionTable.noSession)
            }
            guard case .write = route, mode != .write else { return nil }
            return Response(Session.isForReading)
        case .info, .devices, .device, .content, .sessions, .session: return nil
        }
    }

    func answer(
        _ request: Request, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> Response {
        try service.answer(route, request, memory)
    }

    func adapt(_ response: inout Response) {}
}
