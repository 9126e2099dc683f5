// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import DeviceProbe
package import Digests
internal import Glibc
internal import LinuxIO
internal import SyncEngine
internal import Synchronization
package import WireProtocol

/// A device of a server, pinned by a session.
///
/// A session that is lost, because the server was started anew, is opened again, and the work goes
/// on; the device must be the same, and the gate there judges again.
package final class RemoteBlockDevice: RemoteDevice {
    /// What a session is for.
    package struct Purpose: Sendable {
        package var mode: SessionRequest.Mode
        /// Bytes.
        package var block: Int
        /// Of a target: what it is to become a replica of.
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
    /// What the session is opened with where it is lost.
    let request: SessionRequest

    struct State {
        /// What the server told when the session began.
        var record: SessionRecord
        var session: String
        var size: Int
        /// Whether something is known of the device's content, or was written.
        var isUsed = false
        var generation = 0
        var pendingSize: Int?
        var isReleased = false
        var stamp: [Int]?
        var stampTime: ContinuousClock.Instant?
    }
    /// Where the data is, as far as it was asked for last.
    struct KnownMap {
        var start: Int
        var map: DataMap
        /// Where the last byte written since lies: below it there may be data that it lacks.
        var writtenTo = 0
    }
    let state: Mutex<State>
    /// Held while the session is opened again.
    let reopening = Mutex(())
    let channels = Mutex<[Channel]>([])
    let map = Mutex<KnownMap?>(nil)
    let keeper: SessionKeeper

    /// Opens a session on the device that the server's URL names.
    ///
    /// - Parameters:
    ///   - server: where.
    ///   - purpose: what for.
    ///   - method: the digest; `nil` for the fastest that both have.
    /// - Throws: the refusal of the server's gate, with the user's name for the device; the errors
    ///   of the device and of the network.
    package init(
        _ server: RemoteServer, for purpose: Purpose, digest method: DigestMethod?
    ) throws(ProbeError) {
        let name = server.location.text
        guard let selector = server.location.selector else {
            throw .failed(
                .network(
                    name, "open", reason: "the URL names no device",
                    advice: "blkferry list \(name) shows what there is."))
        }
        let offered = try Self.offered(method, name)
        var request = SessionRequest(
            mode: purpose.mode, block: purpose.block, digest: offered.method.name, key: nil)
        request.fasterDigests = offered.faster
        let key: DigestKey?
        do throws(DigestError) {
            key = method?.isKeyed ?? true ? try DigestKey() : nil
            request.key = key?.withUnsafeBytes { hexadecimal($0) }
            request.run = try DigestKey().withUnsafeBytes { hexadecimal($0.prefix(16)) }
        } catch {
            throw .failed(IOError(name, error.operation, reason: error.reason))
        }
        request.source = purpose.source.map {
            SourceRecord($0, boot: readSmallFile("/proc/sys/kernel/random/boot_id"))
        }
        request.set(purpose.policy)
        if purpose.policy?.concernsVolumes == true { try server.requireVolumes() }
        let record = try Self.open(server, selector, request)
        // Who opens the session again needs the same, whatever that server would choose.
        request.digest = record.digest ?? request.digest
        request.fasterDigests = nil
        // It is there now: who opens the session again only names it, for older ones to go at the end.
        request.taken = request.keep == nil ? nil : record.snapshot
        if request.taken == nil {
            request.snapshot = nil
            request.keep = nil
        }
        do throws(DigestError) { digestMethod = try DigestMethod(named: request.digest) } catch {
            throw .failed(IOError(name, error.operation, reason: error.reason))
        }
        self.name = name
        self.server = server
        self.request = request
        digestKey = key
        state = Mutex(
            State(record: record, session: record.session, size: record.size, stamp: record.stamp))
        keeper = SessionKeeper()
        keeper.start(every: min(20, max(0.2, (record.timeout ?? 60) / 3))) { [weak self] in
            self?.touch()
        }
    }

    deinit { keeper.stop() }

    /// What the server told when the session began.
    package var record: SessionRecord { state.withLock { $0.record } }

    /// What the server may choose from: nothing that this libcrypto does not have.
    ///
    /// - Returns: the method for every server, and faster ones where the user leaves the choice.
    private static func offered(
        _ method: DigestMethod?, _ name: String
    ) throws(ProbeError) -> (method: DigestMethod, faster: [String]?) {
        if let method { return (method, nil) }
        let faster = DigestMethod.fasterOnes.map(\.name).filter {
            (try? DigestMethod(named: $0)) != nil
        }
        do throws(DigestError) {
            let method = try DigestMethod(named: DigestMethod.poly1305.name)
            return (method, faster.isEmpty ? nil : faster)
        } catch {
            throw .failed(
                IOError(
                    name, error.operation, reason: "\(error.object): \(error.reason)",
                    advice: "-m NAME chooses another digest."))
        }
    }

    static func open(
        _ server: RemoteServer, _ selector: String, _ request: SessionRequest
    ) throws(ProbeError) -> SessionRecord {
        let bytes = WireJSON.encode(request)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
        defer { memory.deallocate() }
        memory.copyBytes(from: bytes)
        let record = try server.json(
            HTTPRequest(
                .post, Route.sessions(device: selector).path, contentType: MediaType.json,
                body: UnsafeRawBufferPointer(memory), silence: 120),
            "open", SessionRecord.self)
        guard isSane(record, request) else {
            throw .failed(
                .network(
                    server.location.text, "open", reason: "the server's answer contradicts itself"))
        }
        return record
    }

    /// What a lying server could make us divide by, or allocate.
    private static func isSane(_ record: SessionRecord, _ request: SessionRequest) -> Bool {
        let sizes = 0...Geometry.maximumSize
        guard sizes.contains(record.size), record.alignment > 0,
            record.alignment <= 1 << 20, record.alignment.nonzeroBitCount == 1,
            record.block >= request.block, record.block % request.block == 0,
            record.block % record.alignment == 0,
            sizes.contains(record.sizeBefore ?? 0), sizes.contains(record.resizeTo ?? 0),
            record.logicalSector.map({ $0 >= 512 && $0.nonzeroBitCount == 1 }) ?? true,
            (try? record.content.content()) != nil,
            record.digest == nil || record.digest == request.digest
                || request.fasterDigests?.contains(record.digest ?? "") == true
        else { return false }
        return (try? WireLayout(block: record.block, region: record.region, digestSize: 16)) != nil
    }

    package var geometry: Geometry {
        // Blocks that the server has raised may be larger than what it tells of its transfers: they
        // are the chunks of a thin pool then.
        let (record, size) = state.withLock { ($0.record, $0.size) }
        return Geometry(
            size: size, logicalSector: record.logicalSector ?? 512,
            alignment: record.block > request.block ? record.block : record.alignment)
    }

    /// What the gate on this side has to know of a source over there.
    package func sourceFacts() throws(ProbeError) -> SourceFacts {
        let content: Content
        do throws(WireError) { content = try record.content.content() } catch {
            throw .failed(.network(name, "open", reason: error.reason))
        }
        return SourceFacts(
            name: name, size: record.size, content: content, logicalSector: record.logicalSector,
            identity: record.host?.identity(boot: readSmallFile("/proc/sys/kernel/random/boot_id"))
        )
    }
}
