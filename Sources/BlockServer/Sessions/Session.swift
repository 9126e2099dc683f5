// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import Glibc
internal import LinuxIO
internal import Synchronization
internal import SystemPackage
internal import UndoJournal
internal import WireProtocol

/// One client's use of one device, which stays open until the session ends.
final class Session: Sendable {
    let id: String
    let mode: SessionRequest.Mode
    /// What the client may do; only the client that opened the session can use it.
    let permission: Permission
    let device: any BlockDevice
    let layout: BlockLayout
    let method: DigestMethod
    let key: DigestKey?
    let record: SessionRecord
    /// Paths of devices whose page cache covers the same bytes.
    let relatives: [String]
    /// What keeps the old bytes of a target; `nil` for a session that does not write.
    private let journal: TargetJournal?
    /// Timeout until the session has written; `nil` for the normal timeout.
    private let briefSilence: Duration?
    /// Held while a part of a sector or the size changes.
    let edges = Mutex<Void>(())
    /// How often the device reported foreign writes, and other writers.
    ///
    /// Held while the device is asked, because it reports each write and each writer once.
    private let writeReports = Mutex(0)
    private let writerReports = Mutex(0)
    let start = ContinuousClock().now
    /// Seconds since 1970.
    let began = time(nil)

    /// Bytes compared, found to differ, read, written and zeroed.
    ///
    /// A few requests about a sparse image of an EiB would overflow an `Int`. So a count stops
    /// where the largest image, or another count, can still be added.
    struct Counts: Hashable, Sendable {
        var compared = 0 { didSet { compared = min(compared, Self.most) } }
        /// In regions whose digests differ.
        var changed = 0 { didSet { changed = min(changed, Self.most) } }
        var read = 0 { didSet { read = min(read, Self.most) } }
        var written = 0 { didSet { written = min(written, Self.most) } }
        var zeroed = 0 { didSet { zeroed = min(zeroed, Self.most) } }

        private static let most = Int.max / 2

        static func += (sum: inout Counts, other: Counts) {
            sum.compared += other.compared
            sum.changed += other.changed
            sum.read += other.read
            sum.written += other.written
            sum.zeroed += other.zeroed
        }
    }

    private struct State {
        var lastUsed = ContinuousClock().now
        var inWork = 0
        /// Requests in work that wait for the others.
        var waiting = 0
        var counts = Counts()
        var map: BlockMap
        /// Requests in work that write.
        var writing = 0
        var mayWrite = true
        var isEnded = false
        var zeroDigest: [UInt8] = []
        var hasUpdatedPartitions = false
        var isRevoked = false
        /// The client must show a certificate of the new authority.
        var isUnconfirmed = false
        /// Ranges behind the replica, in bytes, that the last commit zeros.
        var leftovers: [ByteRange]
    }
    private let state: Guarded<State>

    init(
        id: String, mode: SessionRequest.Mode, _ permission: Permission,
        device: any BlockDevice, layout: BlockLayout, method: DigestMethod, key: DigestKey?,
        record: SessionRecord, relatives: [String], leftovers: [ByteRange] = [],
        briefSilence: Duration? = nil, journal: TargetJournal? = nil
    ) {
        self.id = id
        self.mode = mode
        self.permission = permission
        self.device = device
        self.layout = layout
        self.method = method
        self.key = key
        self.record = record
        self.relatives = relatives
        state = Guarded(State(map: BlockMap(size: record.size), leftovers: leftovers))
        self.briefSilence = briefSilence
        self.journal = journal
    }

    /// The undo journal; `nil` without one, or if nothing was overwritten.
    var undo: UndoRecord? { journal?.report.map { UndoRecord($0) } }

    /// Ends the undo journal after the last flush, and returns warnings of one line each.
    func finishJournal(isComplete: Bool) -> [String] {
        journal?.finish(isComplete: isComplete).warning.map { [$0] } ?? []
    }

    /// The level of zstd for answers to reads; `nil` if the session's payloads are not packed.
    var zstdLevel: Int? { record.zstd }

    var run: String? { permission.request?.run }
    var peer: String { permission.peer.name }
    var grant: Grant { permission.grant }
    var name: String { permission.found.name }

    /// Begins a request; `false` if the session has ended or is not allowed any more.
    func begin() -> Bool {
        state.withLock { state in
            guard !state.isEnded, !state.isRevoked else { return false }
            state.isUnconfirmed = false
            state.inWork += 1
            state.lastUsed = ContinuousClock().now
            return true
        }
    }

    func finish() {
        state.withLock { state in
            state.inWork -= 1
            state.lastUsed = ContinuousClock().now
        }
    }

    /// Waits for the other requests in work; several waiting requests continue one at a time.
    func waitForOthers() {
        state.withLock { $0.waiting += 1 }
        state.wait { state in
            guard state.inWork == state.waiting else { return false }
            state.waiting -= 1
            return true
        }
    }

    /// Begins a request that writes; `false` if the session writes no more.
    ///
    /// If `true`, the caller must call `finishWriting()`.
    func beginWriting() -> Bool {
        state.withLock { state in
            if state.mayWrite { state.writing += 1 }
            return state.mayWrite
        }
    }

    func finishWriting() { state.withLock { $0.writing -= 1 } }

    /// Refuses all further writes if none has been done or is in work, and returns whether it does.
    func endUnusedWriting() -> Bool {
        state.withLock { state in
            guard state.writing == 0, state.counts.written == 0, state.counts.zeroed == 0 else {
                return false
            }
            state.mayWrite = false
            return true
        }
    }

    func revoke() { state.withLock { $0.isRevoked = true } }

    var isRevoked: Bool { state.withLock { $0.isRevoked } }

    /// Shortens the timeout until the next request of a client that showed a certificate.
    func awaitClient() {
        if permission.peer.certificateEnd != nil { state.withLock { $0.isUnconfirmed = true } }
    }

    var isEnded: Bool { state.withLock { $0.isEnded } }

    /// Marks the session as ended, and returns whether this call has done so.
    ///
    /// - Parameter silence: ends only a session without requests in work for this time.
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

    /// Time for a client to reconnect with a certificate of the new authority.
    private static let returnTime = Duration.seconds(10)

    /// The present timeout; `nil` for the normal one of all sessions.
    var silence: Duration? {
        if state.withLock({ $0.isUnconfirmed }) { return Self.returnTime }
        let counts = counts
        return counts.written + counts.zeroed > 0 ? nil : briefSilence
    }

    var leftovers: [ByteRange] { state.withLock { $0.leftovers } }

    /// Removes a range from the leftovers: the client has written it, such as a backup GPT, or it
    /// has been zeroed.
    func forgetLeftovers(in range: ByteRange) {
        state.withLock { state in
            guard !state.leftovers.isEmpty else { return }
            state.leftovers = state.leftovers.flatMap { $0.without(range) }
        }
    }

    /// Counts what a request has done, and marks it on the map.
    func count(_ change: (inout Counts, inout BlockMap) -> Void) {
        state.withLock { change(&$0.counts, &$0.map) }
    }

    var counts: Counts { state.withLock { $0.counts } }

    var map: BlockMap { state.withLock { $0.map } }

    /// Whether another process has written to the target since the session began.
    var hasForeignWrites: Bool {
        guard mode == .write else { return false }
        return writeReports.withLock { reports in
            if device.hasForeignWrites() { reports += 1 }
            return reports > 0
        }
    }

    /// Whether only a comparison shows that no other process wrote to the target.
    var hadOtherWriters: Bool {
        guard mode == .write else { return false }
        return writerReports.withLock { reports in
            if device.hadOtherWriters() { reports += 1 }
            return reports > 0
        }
    }

    /// The device's change counter, which also changes when the device reports other writers again.
    ///
    /// The kernel's counts of a loop device do not contain writes to the file behind it.
    func changeCounter() -> [Int]? {
        guard let marks = device.changeCounter()?.marks else { return nil }
        let reports = writerReports.withLock { $0 }
        return reports == 0 ? marks : marks + [reports]
    }

    /// Whether it is known that no other process has written to the target since the session began.
    var hadOnlyOwnWriters: Bool {
        device.reportsForeignWrites && !hasForeignWrites && !hadOtherWriters
    }

    /// Throws if the device's name leads to nothing or to another device, or its size has changed.
    func checkIdentity(in exports: ExportTable) throws(Problem) {
        do throws(IOError) {
            // The path of an anchor leads to the file even after the file was renamed.
            if permission.found.anchor != nil, device.isImage {
                try device.checkName(Result { () throws(Errno) in try exports.status(at: name) })
            }
            try device.checkIdentity()
        } catch {
            throw Problem(error)
        }
    }

    func makeHasher() throws(Problem) -> BlockHasher {
        do throws(IOError) { return try BlockHasher(method, key: key) } catch {
            throw Problem(error)
        }
    }

    /// The digest of a whole region of zeros; empty until a request has needed it.
    var zeroDigest: [UInt8] {
        get { state.withLock { $0.zeroDigest } }
        set { state.withLock { $0.zeroDigest = newValue } }
    }

    /// Keeps a snapshot, and a new volume that was read, since the client may come back.
    func leaveTarget() { device.leave() }

    /// Finishes the target after a complete commit, and returns warnings of one line each.
    func finishTarget() -> [String] { device.release(isComplete: true) + updatePartitions() }

    func flush() throws(IOError) {
        guard mode == .write else { return }
        try device.flush()
        for relative in relatives {
            BlockSpecialFile.writeBackCache(of: relative, dropping: true)
        }
    }

    /// Makes the kernel read the partition table again, once, and returns warnings of one line
    /// each.
    func updatePartitions() -> [String] {
        let isFirst = state.withLock { state in
            defer { state.hasUpdatedPartitions = true }
            return !state.hasUpdatedPartitions
        }
        guard isFirst, mode == .write else { return [] }
        let counts = counts
        return KernelPartitions.update(device, wasWritten: counts.written + counts.zeroed > 0)
            .warning.map { [$0] } ?? []
    }
}

extension Problem {
    init(_ error: WireError) {
        self.init(.malformed, status: 400, "The request is malformed", detail: error.reason)
    }
}
