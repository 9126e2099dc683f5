// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import Glibc
internal import LinuxIO
internal import Synchronization
internal import WireProtocol

/// One client's use of one device, which it pins.
final class Session: Sendable {
    let id: String
    /// What the client drew for its run.
    let run: String?
    let peer: String
    /// Of the token that it was opened with: nobody else gets at it.
    let grant: Grant
    let mode: SessionRequest.Mode
    /// What the device is called to clients.
    let name: String
    let device: any BlockDevice
    let layout: WireLayout
    let method: DigestMethod
    let key: DigestKey?
    /// What was told when it began.
    let record: SessionRecord
    /// Paths of devices that cache the same bytes.
    let relatives: [String]
    private let anchor: ExportTable.Anchor?
    /// After which it is released as long as nothing was written; `nil` for that of the table.
    private let briefSilence: Duration?
    /// Held by who changes a part of a sector, or the size.
    let edges = Mutex<Void>(())
    let start = ContinuousClock().now

    /// What has been done, in bytes.
    struct Counts: Hashable, Sendable {
        var compared = 0
        var read = 0
        var written = 0
        var zeroed = 0
    }

    private struct State {
        var lastUsed = ContinuousClock().now
        var inWork = 0
        /// Those in work that wait for the others.
        var waiting = 0
        var counts = Counts()
        var isEnded = false
        var zeroDigest: [UInt8]?
    }
    private let state = Mutex(State())

    init(
        id: String, run: String?, peer: String, grant: Grant, mode: SessionRequest.Mode,
        name: String,
        device: any BlockDevice, layout: WireLayout, method: DigestMethod, key: DigestKey?,
        record: SessionRecord, relatives: [String], anchor: ExportTable.Anchor?,
        briefSilence: Duration? = nil
    ) {
        self.id = id
        self.run = run
        self.peer = peer
        self.grant = grant
        self.mode = mode
        self.name = name
        self.device = device
        self.layout = layout
        self.method = method
        self.key = key
        self.record = record
        self.relatives = relatives
        self.anchor = anchor
        self.briefSilence = briefSilence
    }

    /// Begins a request; `false` when the session has ended.
    func begin() -> Bool {
        state.withLock { state in
            guard !state.isEnded else { return false }
            state.inWork += 1
            state.lastUsed = ContinuousClock().now
            return true
        }
    }

    /// Ends a request.
    func finish() {
        state.withLock { state in
            state.inWork -= 1
            state.lastUsed = ContinuousClock().now
        }
    }

    /// Waits until the other requests in work are done; of several that wait, one at a time goes on.
    func waitForOthers() {
        state.withLock { $0.waiting += 1 }
        let isAlone = { [self] in
            state.withLock { state in
                guard state.inWork == state.waiting else { return false }
                state.waiting -= 1
                return true
            }
        }
        while !isAlone() { usleep(1000) }
    }

    var isEnded: Bool { state.withLock { $0.isEnded } }

    /// Marks it as ended, once.
    ///
    /// - Parameter silence: only when nothing was heard for so long, and nothing is in work.
    /// - Returns: whether this call has ended it.
    func end(afterSilence silence: Duration? = nil) -> Bool {
        state.withLock { state in
            if state.isEnded { return false }
            if let silence {
                guard state.inWork == 0, ContinuousClock().now - state.lastUsed >= silence else {
                    return false
                }
            }
            state.isEnded = true
            return true
        }
    }

    /// After which it is released now; `nil` for that of the table.
    var silence: Duration? {
        let counts = counts
        return counts.written + counts.zeroed > 0 ? nil : briefSilence
    }

    func count(_ change: (inout Counts) -> Void) { state.withLock { change(&$0.counts) } }

    var counts: Counts { state.withLock { $0.counts } }

    func makeHasher() throws(Problem) -> BlockHasher {
        do throws(DigestError) { return try BlockHasher(method, key: key) } catch {
            throw Problem(error)
        }
    }

    /// The digest of a whole region of zeros.
    func zeroRegionDigest(_ hasher: inout BlockHasher) throws(Problem) -> [UInt8] {
        if let known = state.withLock({ $0.zeroDigest }) { return known }
        let digest = try digestOfZeros(layout.region, &hasher)
        state.withLock { $0.zeroDigest = digest }
        return digest
    }

    func digestOfZeros(_ count: Int, _ hasher: inout BlockHasher) throws(Problem) -> [UInt8] {
        let zeros = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 8)
        defer { zeros.deallocate() }
        zeros.initializeMemory(as: UInt8.self, repeating: 0)
        let digest = UnsafeMutableRawBufferPointer.allocate(
            byteCount: method.byteCount, alignment: 8)
        defer { digest.deallocate() }
        do throws(DigestError) {
            try hasher.digest(of: UnsafeRawBufferPointer(zeros), into: digest)
        } catch {
            throw Problem(error)
        }
        return Array(digest)
    }

    /// What was made for the session stays as far as its client counts on it, who may come back.
    func leaveTarget() { (device as? VolumeTarget)?.leave() }

    /// The session has come to its end, all of it being written.
    ///
    /// - Returns: which older snapshots could not be removed, and why, one line each.
    func finishTarget() -> [String] { (device as? VolumeTarget)?.finish() ?? [] }

    /// Puts what was written on the medium.
    func flush() throws(IOError) {
        guard mode == .write else { return }
        try device.flush()
        for relative in relatives {
            BlockSpecialFile.writeBackCache(of: relative, dropping: true)
        }
        if let block = device as? BlockSpecialFile, counts.written + counts.zeroed > 0 {
            // The kernel still has the partitions of what was there before.
            _ = block.rereadPartitions()
        }
    }
}

extension Problem {
    init(_ error: DigestError) {
        self.init(.digest, status: 500, "libcrypto failed", detail: error.reason)
        object = error.object
        operation = error.operation
    }

    /// A request that cannot be understood.
    init(_ error: WireError) {
        self.init(.malformed, status: 400, "The request is malformed", detail: error.reason)
    }
}
