// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

/// What to do if target and source differ in size.
package enum SizePolicy: String, CaseIterable, Sendable {
    case refuse
    /// The target gets the source's size.
    case resize
    /// A larger target is accepted, and its tail is not changed.
    case prefix
}

/// What the user allows.
package struct GatePolicy: Hashable, Sendable {
    /// `nil` for the default: `refuse` for block devices, `resize` for images.
    package var sizePolicy: SizePolicy?
    package var overwrite: Bool
    package var isDryRun: Bool
    /// Whether a logical volume that is too large may be cut.
    package var shrinks = false
    /// Whether a missing logical volume is created.
    ///
    /// An existing one is resized, unless `sizePolicy` says otherwise.
    package var creates = false
    /// Whether the client moves the backup of a GPT to the end of a larger target.
    package var movesBackup = false
    /// Whether the caller itself proves, before it writes, that the content may be overwritten.
    package var ignoresContent = false
    /// Snapshot to take of a logical volume before it is written; `nil` for none.
    package var snapshot: TargetSnapshot?

    package init(sizePolicy: SizePolicy? = nil, overwrite: Bool = false, isDryRun: Bool = false) {
        self.sizePolicy = sizePolicy
        self.overwrite = overwrite
        self.isDryRun = isDryRun
    }

    package var concernsVolumes: Bool { shrinks || creates || snapshot != nil }
}

struct TargetFacts: Sendable {
    var name: String
    var kind: AdmittedTarget.Kind
    /// Bytes.
    var size: Int
    /// Bytes; `nil` for an image.
    var logicalSector: Int?
    var content: Content
    /// `false` for an image that is a single hole.
    var hasData = true
    /// The size of the smallest volume that the source fits in, in bytes, if the target is a volume
    /// that may be resized.
    var fittingVolume: Int?
}

/// The safety gate's rules about content and size, as pure functions.
struct TargetRules: Sendable {
    let source: SourceFacts
    let policy: GatePolicy

    struct Verdict: Hashable, Sendable {
        /// The size that the target must get, in bytes; `nil` if it keeps its size.
        var resizeTo: Int?
        /// The end of the replica, if everything behind it must be zeroed.
        var zeroesTailFrom: Int?
        /// Ranges of magic numbers behind the replica to zero after the copy, in bytes.
        var erased: [ByteRange] = []
        var warnings: [String] = []
        var isReplica = false
    }

    /// Applies all rules in order, and throws the first refusal.
    func apply(to target: TargetFacts) throws(IOError) -> Verdict {
        var verdict = Verdict()
        try checkContent(of: target, &verdict)
        verdict.isReplica =
            target.content != .empty && target.content.isReplica(of: source.content)
        try checkSize(of: target, &verdict)
        try checkSectorSize(of: target, &verdict)
        try checkFormat(target, &verdict)
        return verdict
    }

    /// Refuses a target with other content than a replica of the source.
    private func checkContent(of target: TargetFacts, _ verdict: inout Verdict) throws(IOError) {
        if policy.ignoresContent { return }
        let behind = leftBehind(on: target)
        if target.content == .empty {
            if let refusal = refusalOfOddSize(target) { throw refusal }
            return
        }
        if behind.isEmpty && target.content.isReplica(of: source.content) { return }
        guard policy.overwrite else { throw refusal(of: target, behind) }
        switch target.content {
        case .unreadable(let reason):
            verdict.warnings.append("\(target.name): its content cannot be determined: \(reason)")
        case .partial(let partial):
            verdict.warnings.append(
                "\(target.name): its other content cannot be determined: \(partial.reason)")
        case .empty, .signatures, .ambiguous: break
        }
        verdict.erased = behind.flatMap { $0.magicNumbers(from: source.size, to: target.size) }
        verdict.warnings += behind.map {
            "\(target.name): \($0) behind the source's end is removed"
        }
    }

    private func checkSize(of target: TargetFacts, _ verdict: inout Verdict) throws(IOError) {
        guard target.size != source.size else { return }
        let sizes = "it has \(target.size) bytes, the source \(source.size)"
        // A packed disk image has another size than the disk.
        let unpacking = target.kind == .blockDevice ? source.unpackingAdvice?.advice : nil
        switch (sizePolicy(for: target), target.kind) {
        case (.resize, .image):
            verdict.resizeTo = source.size
        case (.resize, .blockDevice) where target.fittingVolume != nil:
            guard let size = target.fittingVolume else { break }
            verdict.zeroesTailFrom = source.size
            if target.size == size { break }
            guard target.size < size || policy.shrinks else {
                throw .refusal(
                    .size, target.name, "\(sizes), and it would have to be cut",
                    advice: "--shrink cuts it; --size-policy prefix leaves the rest alone.")
            }
            verdict.resizeTo = size
        case (.prefix, _) where target.size > source.size:
            guard source.content.partitionTable?.type == "gpt", !policy.movesBackup else { break }
            guard source.isSizeKnown else {
                verdict.warnings.append(
                    "\(target.name): the backup of the GPT will be at its end only if the source has "
                        + "\(target.size) bytes")
                break
            }
            verdict.warnings.append(
                "\(target.name): the backup of the GPT will not be at its end, since \(sizes); "
                    + "--move-backup-gpt puts it there")
        case (.resize, .blockDevice):
            throw .refusal(
                .size, target.name, "\(sizes), and it cannot be resized",
                advice: unpacking
                    ?? (target.size > source.size ? Self.prefixAdvice : Self.tooSmallAdvice))
        case (_, .image):
            throw .refusal(
                .size, target.name, sizes,
                advice: "--size-policy resize gives it the source's size.")
        case (_, .blockDevice):
            throw .refusal(
                .size, target.name, sizes,
                advice: unpacking
                    ?? (target.size > source.size ? Self.prefixAdvice : Self.tooSmallAdvice))
        }
    }

    func sizePolicy(for target: TargetFacts) -> SizePolicy {
        if let asked = policy.sizePolicy { return asked }
        return policy.creates && target.fittingVolume != nil
            ? .resize : target.kind.defaultSizePolicy
    }

    private static let prefixAdvice =
        "--size-policy prefix writes the source's bytes and leaves the rest alone."
    private static let tooSmallAdvice = "It needs a target that is at least as large."

    /// Refuses 512e against 4Kn, where the table's numbers would mean other places.
    private func checkSectorSize(of target: TargetFacts, _ verdict: inout Verdict) throws(IOError) {
        guard let table = source.content.partitionTable, let sector = target.logicalSector,
            sector != table.sectorSize
        else { return }
        let reason =
            "its logical sectors have \(sector) bytes, and the source's \(table.type) partition"
            + " table counts in \(table.sectorSize)"
        guard policy.overwrite else {
            throw .refusal(
                .sectorSize, target.name, "\(reason): its partitions would not be found",
                advice: "If you know what to do about that, say --overwrite.")
        }
        verdict.warnings.append("\(target.name): \(reason); its partitions will not be found")
    }
}

extension AdmittedTarget.Kind {
    fileprivate var defaultSizePolicy: SizePolicy {
        switch self {
        case .blockDevice: .refuse
        case .image: .resize
        }
    }
}
