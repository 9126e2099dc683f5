// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import DeviceProbe
package import Digests
internal import Glibc
package import LinuxIO
internal import SyncEngine
internal import Synchronization
package import WireProtocol

/// A device of a server, pinned by a session.
///
/// If the session ends because of a server restart or a timeout, the client opens a new one. It
/// must be on the same device, and the server's gate checks the target again.
package final class RemoteBlockDevice: RemoteDevice {
    package struct Purpose: Sendable {
        package var mode: SessionRequest.Mode
        /// Bytes.
        package var block: Int
        package var source: SourceFacts?
        package var policy: GatePolicy?

        package init(
            mode: SessionRequest.Mode, block: Int, source: SourceFacts? = nil,
            policy: GatePolicy? = nil
        ) {
            self.mode = mode
            self.block = block
            self.source = source
            self.policy = policy
        }
    }

    package let name: String
    package let digestMethod: DigestMethod
    package let digestKey: DigestKey?
    package let server: RemoteServer
    /// The request that opens the session, also after a loss.
    let request: SessionRequest

    struct State {
        /// The server's answer when the session began.
        var record: SessionRecord
        /// The undo journal of the session on its server, as of the last answer.
        var undo: UndoRecord?
        var session: String
        var size: Int
        /// Whether the run knows some of the device's content or has written to it.
        var isUsed = false
        var generation = 0
        var pendingSize: Int?
        var isReleased = false
        /// Whether the server saw another process write to the target.
        var hasForeignWrites = false
        /// Whether the server saw another process close the target after it had it open for
        /// writing.
        var hadOtherWriters = false
        /// The change counter when `hadOtherWriters` was last reported to the run.
        var counterOfWriters: [Int]?
        var counter: [Int]?
        var counterTime: ContinuousClock.Instant?
        /// The record in the answer to the last flush, until the run uses it or the session.
        var recordOfFlush: SessionRecord?
        var lastAnswer = ContinuousClock.now
        var hasGap = false
        /// Whether everything must be compared again before any other request.
        var needsRestart = false
        /// The reason why no new session could be opened.
        var failure: IOError?
    }
    /// The data ranges of an image, as far as the last request covered them.
    struct KnownMap {
        var start: Int
        var map: DataMap
        /// The end of the highest write since; below it there may be data that the map lacks.
        var writtenTo = 0
    }
    let state: Mutex<State>
    /// Held while a session is reopened.
    let reopening = Mutex(())
    let channels = Mutex<[SessionConnection]>([])
    let map = Mutex<KnownMap?>(nil)
    /// Set if the session's payloads are packed.
    let packing: PayloadPacking?
    let keeper: SessionKeepalive
    /// Lets the next client on this machine end the session if this process is killed.
    let claim: SessionClaim?

    /// Opens a session on the device that the server's URL names.
    ///
    /// - Parameter method: the digest; `nil` for the fastest that both sides have.
    /// - Throws: the refusal of the server's gate, or an error of the device or the network.
    package init(
        _ server: RemoteServer, for purpose: Purpose, digest method: DigestMethod?
    ) throws(IOError) {
        let name = server.location.text
        guard let selector = server.location.selector else {
            throw .network(
                name, "open", reason: "the URL names no device",
                advice: "blkferry list \(name) shows what there is.")
        }
        let offered = try Self.offered(method)
        var request = SessionRequest(
            mode: purpose.mode, block: purpose.block, digest: offered.method.name, key: nil)
        request.fasterDigests = offered.faster
        let key = method?.isKeyed ?? true ? try DigestKey() : nil
        request.key = key?.withUnsafeBytes { hexadecimal($0) }
        request.run = try DigestKey().withUnsafeBytes { hexadecimal($0.prefix(16)) }
        request.source = purpose.source.map { SourceRecord($0, boot: bootIdentifier()) }
        request.set(purpose.policy)
        request.zstd = try server.zstdLevel()
        if purpose.policy?.concernsVolumes == true { try server.requireVolumes() }
        server.connectAhead()
        let (record, claim) = try SessionClaim.open(server, selector, request)
        // A new session must use the same digest, whatever that server would choose.
        request.digest = record.digest ?? request.digest
        request.fasterDigests = nil
        // The snapshot exists now. A new session only names it, so that the server removes older
        // ones at the end.
        request.taken = request.keep == nil ? nil : record.snapshot
        if request.taken == nil {
            request.snapshot = nil
            request.keep = nil
        }
        digestMethod = try DigestMethod(named: request.digest)
        self.name = name
        self.server = server
        self.request = request
        self.claim = claim
        digestKey = key
        state = Mutex(
            State(record: record, session: record.session, size: record.size, counter: record.stamp)
        )
        packing = record.zstd.map { _ in PayloadPacking(server.options.compression) }
        if request.zstd != nil && packing == nil {
            server.note("payloads are not compressed: the server cannot compress with zstd")
        }
        keeper = SessionKeepalive()
        keeper.start(every: min(20, max(0.2, (record.timeout ?? 60) / 3))) { [weak self] in
            self?.claim?.touch()
            self?.touch()
        }
    }

    deinit { keeper.stop() }

    /// The undo journal that the server keeps of the session; `nil` without one, or if nothing was
    /// overwritten.
    package var undo: UndoRecord? { state.withLock { $0.undo } }

    package var record: SessionRecord { state.withLock { $0.record } }

    /// Returns the digests that the server may choose from, among those of this libcrypto.
    ///
    /// - Returns: the method that every server has, and faster ones unless the user chose a method.
    private static func offered(
        _ method: DigestMethod?
    ) throws(IOError) -> (method: DigestMethod, faster: [String]?) {
        if let method { return (method, nil) }
        let faster = DigestMethod.fasterOnes.map(\.name).filter {
            (try? DigestMethod(named: $0)) != nil
        }
        do throws(IOError) {
            let method = try DigestMethod(named: DigestMethod.poly1305.name)
            return (method, faster.isEmpty ? nil : faster)
        } catch {
            throw .digest(
                error.object, error.operation, reason: error.reason,
                advice: "-m NAME chooses another digest.")
        }
    }

    static func open(
        _ server: RemoteServer, _ selector: String, _ request: SessionRequest
    ) throws(IOError) -> SessionRecord {
        let bytes = WireJSON.encode(request)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
        defer { memory.deallocate() }
        memory.copyBytes(from: bytes)
        var record = try server.json(
            HTTPRequest(
                .post, Route.sessions(device: selector).path, contentType: MediaType.json,
                body: UnsafeRawBufferPointer(memory), silence: 120),
            "open", SessionRecord.self, .created)
        do throws(WireError) { try record.check(against: request) } catch {
            if record.hasName { reject(record.session, on: server) }
            throw RemoteServer.invalid(error, server.location.text, "open")
        }
        record.warnings = record.warnings.shortened
        return record
    }

    /// Ends a session whose record is invalid, so that the device is not claimed until the timeout.
    ///
    /// A server with such a record may not answer this either, so it gets one attempt and ten
    /// seconds.
    private static func reject(_ session: String, on server: RemoteServer) {
        let body = ResponseBody(limit: Limits.json)
        let end = HTTPRequest(
            .delete, Route.session(session).path, silence: 10, isRetried: false)
        _ = try? server.send(end, "release", .nothing, into: body)
    }

    package var geometry: Geometry {
        // If the server raised the block size, blocks are the chunks of a thin pool, and may be
        // larger than the alignment that the server reports.
        let (record, size) = state.withLock { ($0.record, $0.size) }
        return Geometry(
            size: size, logicalSector: record.logicalSector ?? 512,
            alignment: record.block > request.block ? record.block : record.alignment)
    }

    /// The facts that the local gate needs of a remote source.
    package func sourceFacts() throws(IOError) -> SourceFacts {
        let content: Content
        do throws(WireError) { content = try record.content.content() } catch {
            throw .network(name, "open", reason: error.reason)
        }
        return SourceFacts(
            name: name, size: record.size, content: content, logicalSector: record.logicalSector,
            identity: record.host?.identity(boot: bootIdentifier()))
    }
}
