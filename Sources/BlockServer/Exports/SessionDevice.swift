// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import SystemPackage
internal import UndoJournal
internal import WireProtocol

/// A device opened for a session, as source or target.
struct SessionDevice {
    /// Timeout for LVM: another process that holds its lock must not block all threads of the
    /// server.
    private static let patience = Duration.seconds(20)

    var device: any BlockDevice
    var facts: SourceFacts
    var kind: String
    var warnings: [String]
    var isRotational: Bool
    var relatives: [String] = []
    /// Ranges behind the replica that the commit zeros.
    var leftovers: [ByteRange] = []
    var sizeBefore: Int?
    var resizeTo: Int?
    var wasCreated: Bool?
    var isReplica: Bool?
    /// The change counter before the target grew.
    var counterBefore: ChangeCounter?
    /// What keeps the old bytes of a target; without a directory for journals it only makes those of
    /// earlier runs unusable.
    private(set) var journal: TargetJournal?
    /// Whether no program has written to it since its change counter had the client's value.
    var isUnchanged = false

    /// - Parameters:
    ///   - counter: the change counter that the device must still have; `nil` for any.
    ///   - reasonToGiveUp: ends the gate's wait for a target that is locked or claimed.
    /// - Throws: the gate's refusal, a refusal if the device has changed, the reason to give up, and
    ///   the device's error.
    init(
        _ found: ExportTable.Found, _ request: SessionRequest, since counter: [Int]? = nil,
        boot: String?, view: SystemView, undo: UndoDirectory? = nil,
        unless reasonToGiveUp: @escaping @Sendable () -> Problem?
    ) throws(Problem) {
        let wanted = request.mode == .read ? nil : try Self.wanted(found, request, boot: boot)
        do throws(IOError) {
            guard let (source, policy) = wanted else {
                let opened = try openSource(.path(found.path), as: found.name, view: view)
                device = opened.device
                facts = opened.facts
                kind = opened.device.isImage ? "image" : "block-device"
                warnings =
                    opened.warnings
                    + found.silentRivals.map { "\($0) does not answer, and may be meant" }
                isRotational = opened.isRotational
                return
            }
            if let silent = found.silentRivals.first {
                throw .refusal(
                    .ambiguousSelector, found.name,
                    "\(silent), which does not answer, may have the same tag",
                    advice: "Name the one that is meant by its path.")
            }
            let order =
                request.mode == .write ? try undo?.order(for: found, view) : nil
            var allowed = policy
            // The user accepted the loss of what the first session found, but not of what other
            // programs have written since that session ended.
            if request.continues != nil && counter == nil { allowed.overwrite = false }
            let target = try SafetyGate.admit(
                .path(found.path), as: found.name, source: source, policy: allowed,
                volumes: LVMVolumeManager(patience: Self.patience),
                patience: GatePatience(isCancelled: { reasonToGiveUp() != nil }), view: view)
            device = target.device
            // Checked before the first write, while no other program can open the target.
            if let counter {
                let now = device.persistentChangeCounter()
                isUnchanged = now?.equivalents.contains(counter) ?? false
                guard isUnchanged || now == nil && !allowed.overwrite else {
                    throw .changed(
                        found.name,
                        "another program may have written to it since the session ended")
                }
            }
            let identity =
                found.description?.identity
                ?? target.device.fileStatus.flatMap {
                    DeviceIdentity($0, path: target.device.name)
                }
            facts = SourceFacts(
                name: found.name, size: target.device.geometry.size, content: .empty,
                logicalSector: target.kind == .image ? nil : target.device.geometry.logicalSector,
                identity: identity)
            kind = target.kind.rawValue
            warnings = target.warnings
            isRotational = target.isRotational
            relatives = target.relatives
            leftovers = target.leftovers
            sizeBefore = target.sizeBefore
            wasCreated = target.wasCreated
            isReplica = target.isReplica
            resizeTo = target.resizeTo
            if request.mode == .write {
                let journal = try TargetJournal(
                    order, of: target,
                    named: order == nil || target.wasCreated
                        ? found.name : Self.lastingName(of: found, target),
                    from: source.name, undo?.latest ?? LatestJournals())
                self.journal = journal
                device = journal.device
            }
        } catch {
            // A request that is given up ends the gate's wait with the refusal of a locked target.
            let reason = wanted == nil ? nil : reasonToGiveUp()
            throw reason ?? Problem(opening: error)
        }
        // The lock may have ended with the connection. A new image would be left behind, empty.
        let isNewImage = wasCreated == true && kind == AdmittedTarget.Kind.image.rawValue
        if !isNewImage, let reason = reasonToGiveUp() { throw reason }
        if request.mode == .write { try grow() }
    }

    private static func lastingName(
        of found: ExportTable.Found, _ target: AdmittedTarget
    ) throws(IOError) -> String {
        guard target.kind == .image else {
            return try UndoJournal.lastingName(of: .path(found.path))
        }
        return (try? canonicalPath(found.path)) ?? found.name
    }

    /// Extends the target before the first write; the commit shrinks it.
    private mutating func grow() throws(Problem) {
        guard let size = resizeTo, size > device.geometry.size else { return }
        // Flushes first, so that the counter covers writes of others that are only in the page
        // cache.
        if (try? device.flush()) != nil { counterBefore = device.persistentChangeCounter() }
        do throws(IOError) { try device.resize(to: size) } catch { throw Problem(error) }
    }

    /// The counter by which a client that lost its session knows that what it has read is still
    /// there; `nil` if the device has none.
    ///
    /// The persistent counter of an image is not read, since that writes the image's pages back,
    /// and a source must not be written.
    var counterForReaders: ChangeCounter? {
        // A target that a dry run does not create has nothing that could change. If another program
        // creates it, it is another device.
        if wasCreated == true { return ChangeCounter([]) }
        return kind == "image" ? device.changeCounter() : device.persistentChangeCounter()
    }

    /// The client's source and policy; 400 for an invalid request.
    private static func wanted(
        _ found: ExportTable.Found, _ request: SessionRequest, boot: String?
    ) throws(Problem) -> (source: SourceFacts, policy: GatePolicy) {
        do throws(WireError) {
            guard let record = request.source else { throw WireError("source is missing") }
            return (try record.facts(boot: boot), found.limit(try request.policy()))
        } catch {
            throw Problem(error)
        }
    }

    /// The alignment of transfers for the client: a power of two up to 1 MiB.
    ///
    /// The alignment of a thin pool's volume is its chunk size, which need not be a power of two.
    var alignment: Int {
        let alignment = device.geometry.alignment
        return min(alignment & -alignment, 1 << 20)
    }

    /// The layout for the wanted block size, raised to a multiple of the device's alignment.
    func layout(for block: Int) throws(Problem) -> BlockLayout {
        do throws(WireError) {
            guard block > 0, block <= Limits.window else { throw WireError("block size \(block)") }
            var unit = block
            while unit % device.geometry.alignment != 0 {
                unit += block
                guard unit <= Limits.window else {
                    throw WireError("blocks of \(block) bytes do not fit the device")
                }
            }
            guard BlockLayout.isBlock(unit) else {
                throw WireError("block size \(unit): not a multiple of 512 up to \(Limits.window)")
            }
            return BlockLayout(block: unit)
        } catch {
            throw Problem(error)
        }
    }
}

extension Problem {
    /// The problem of an export that cannot be opened or created: 403 if the server's user lacks a
    /// right or the file system is read-only, since the device has not failed.
    init(opening error: IOError) {
        self.init(error)
        switch error.errno {
        case .some(.permissionDenied), .some(.notPermitted):
            status = 403
            detail = "the server's user may not do that: \(error.reason)"
            if error.kind == .creation {
                advice = "Let the server's user write to the directory, and read it."
            }
        case .some(.readOnlyFileSystem): status = 403
        default: break
        }
    }
}
