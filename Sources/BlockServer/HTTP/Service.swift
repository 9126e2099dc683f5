// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import Synchronization
internal import WireProtocol

/// NIOCore has an `IOError`, too.
typealias IOError = LinuxIO.IOError

/// Answers requests; each call blocks a thread of the queue.
final class Service: Sendable {
    let rights: Rights
    private let sessions: SessionTable
    private let contents: ContentCache
    /// The protocols that the server speaks; no two of them share a path.
    let families: [any RouteFamily]
    /// Whether a job that tidies waits for a thread.
    private let waitsToTidy = Atomic(false)

    init(
        _ rights: Rights, sessions: SessionTable,
        downloads: DownloadLimit = DownloadLimit(limit: .max, ofClient: .max), version: String,
        servesPdiffcopy: Bool = true, connections: Connections = Connections()
    ) {
        self.rights = rights
        self.sessions = sessions
        let (exports, contents) = (rights.exports, ContentCache(downloads))
        self.contents = contents
        let families: [(any RouteFamily)?] = [
            BlkferryService(exports, sessions, contents, version: version),
            servesPdiffcopy ? PdiffcopyService(exports, sessions, contents) : nil,
            StatusService(exports, sessions, connections, version: version),
        ]
        self.families = families.compactMap { $0 }
    }

    /// The route of a request's target; `nil` for an unknown path.
    func route(_ target: String) -> (any ServedRoute)? {
        families.lazy.compactMap { $0.route(target) }.first
    }

    /// - Parameter memory: of the thread, at least `Limits.payload`.
    func respond(
        to request: Request, _ memory: UnsafeMutableRawBufferPointer
    ) -> Response {
        var request = request
        if let rejection = authorizeAgain(&request) { return rejection }
        do throws(Problem) { return try request.route.answer(request, memory) } catch {
            var response = Response(error)
            request.route.adapt(&response)
            return response
        }
    }

    /// Refuses a request before the server takes memory for its body; `nil` if it may go on.
    func rejection(
        of request: Request, _ memory: UnsafeMutableRawBufferPointer
    ) -> Response? {
        guard request.route.mayTransfer?(request) == false else { return nil }
        let response = respond(to: request, memory)
        return response.problem == nil ? nil : response
    }

    func replace(exports new: [ExportSelector]) {
        rights.exports.replace(new)
        contents.forgetAll()
    }

    /// Ends sessions and forgets devices, on a thread of the queue.
    ///
    /// It may flush a device that hangs. As for a client, such devices never take all threads.
    func tidy(on queue: WorkQueue) {
        guard !waitsToTidy.exchange(true, ordering: .acquiringAndReleasing) else { return }
        queue.add(for: "server") { [self] _ in
            _ = waitsToTidy.exchange(false, ordering: .acquiringAndReleasing)
            tidy()
        }
    }

    private func tidy() {
        sessions.endSilentAndRevoked()
        for family in families { family.forgetOld() }
    }
}
