// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// What happens to a target of another size than the source's.
package enum SizePolicy: String, CaseIterable, Sendable {
    /// Sizes must be equal.
    case refuse
    /// The target gets the source's size.
    case resize
    /// A larger target is accepted and its tail left alone.
    case prefix
}

/// What the user has allowed.
package struct GatePolicy: Hashable, Sendable {
    /// `nil` for the default: `refuse` for block devices, `resize` for images.
    package var sizePolicy: SizePolicy?
    /// Whether what is on the target may be lost.
    package var overwrite: Bool
    /// Whether nothing is going to be written.
    package var isDryRun: Bool
    /// Whether a logical volume that is too large may be cut.
    package var shrinks = false
    /// Whether a logical volume that is not there is to be made.
    ///
    /// One that is there is resized, unless `sizePolicy` says otherwise.
    package var creates = false
    /// What is to be taken of a logical volume before it is written; `nil` for nothing.
    package var snapshot: TargetSnapshot?

    package init(sizePolicy: SizePolicy? = nil, overwrite: Bool = false, isDryRun: Bool = false) {
        self.sizePolicy = sizePolicy
        self.overwrite = overwrite
        self.isDryRun = isDryRun
    }

    /// Whether something is asked for that there is with logical volumes only.
    package var concernsVolumes: Bool { shrinks || creates || snapshot != nil }
}

/// What is known of a target when the rules are applied to it.
struct TargetFacts: Sendable {
    var name: String
    var kind: AdmittedTarget.Kind
    /// Bytes.
    var size: Int
    /// Bytes; `nil` for an image.
    var logicalSector: Int?
    var content: Content
    /// The size of a logical volume that the source just fits in, in bytes, where the target is one
    /// that may be resized.
    var fittingVolume: Int?
}

/// The rules of the safety gate that are about content and size: pure, no device is touched.
struct TargetRules: Sendable {
    let source: SourceFacts
    let policy: GatePolicy

    /// What may become of the target.
    struct Verdict: Hashable, Sendable {
        /// Bytes that the target has to be resized to; `nil` when its size stays.
        var resizeTo: Int?
        /// Where the replica ends, where what lies beyond is to become zeros.
        var zeroesTailFrom: Int?
        var warnings: [String] = []
    }

    /// Applies all rules, in the order of the design.
    ///
    /// - Throws: the first one's refusal.
    func apply(to target: TargetFacts) throws(Refusal) -> Verdict {
        var verdict = Verdict()
        try checkContent(of: target, &verdict)
        try checkSize(of: target, &verdict)
        try checkSectorSize(of: target, &verdict)
        return verdict
    }

    /// A target that carries something else than a replica of the source is left alone.
    private func checkContent(of target: TargetFacts, _ verdict: inout Verdict) throws(Refusal) {
        if target.content == .empty || target.content.isReplica(of: source.content) { return }
        if policy.overwrite {
            if case .unreadable(let reason) = target.content {
                verdict.warnings.append("\(target.name): what is on it cannot be told: \(reason)")
            }
            return
        }
        let reason: String
        switch target.content {
        case .unreadable(let why): reason = "what is on it cannot be told: \(why)"
        default: reason = "it holds \(target.content), which would be lost"
        }
        throw Refusal(
            .signature, target.name, reason,
            advice: "If that is what you want, say --overwrite.")
    }

    private func checkSize(of target: TargetFacts, _ verdict: inout Verdict) throws(Refusal) {
        guard target.size != source.size else { return }
        let sizes = "it has \(target.size) bytes, the source \(source.size)"
        switch (sizePolicy(for: target), target.kind) {
        case (.resize, .image):
            verdict.resizeTo = source.size
        case (.resize, .blockDevice) where target.fittingVolume != nil:
            guard let size = target.fittingVolume else { break }
            verdict.zeroesTailFrom = source.size
            if target.size == size { break }
            guard target.size < size || policy.shrinks else {
                throw Refusal(
                    .size, target.name, "\(sizes), and it would have to be cut",
                    advice: "--shrink cuts it; --size-policy prefix leaves the rest alone.")
            }
            verdict.resizeTo = size
        case (.prefix, _) where target.size > source.size:
            guard source.content.partitionTable?.type == "gpt" else { break }
            verdict.warnings.append(
                "\(target.name): the backup of the GPT will not be at its end, since \(sizes); "
                    + "sgdisk --move-second-header puts it there")
        case (.resize, .blockDevice):
            throw Refusal(
                .size, target.name, "\(sizes), and it cannot be resized",
                advice: target.size > source.size ? Self.prefixAdvice : Self.tooSmallAdvice)
        case (_, .image):
            throw Refusal(
                .size, target.name, sizes,
                advice: "--size-policy resize gives it the source's size.")
        case (_, .blockDevice):
            throw Refusal(
                .size, target.name, sizes,
                advice: target.size > source.size ? Self.prefixAdvice : Self.tooSmallAdvice)
        }
    }

    private func sizePolicy(for target: TargetFacts) -> SizePolicy {
        if let asked = policy.sizePolicy { return asked }
        return policy.creates && target.fittingVolume != nil
            ? .resize : target.kind.defaultSizePolicy
    }

    private static let prefixAdvice =
        "--size-policy prefix writes the source's bytes and leaves the rest alone."
    private static let tooSmallAdvice = "It needs a target that is at least as large."

    /// 512e against 4Kn: the table's numbers would mean other places.
    private func checkSectorSize(of target: TargetFacts, _ verdict: inout Verdict) throws(Refusal) {
        guard let table = source.content.partitionTable, let sector = target.logicalSector,
            sector != table.sectorSize
        else { return }
        let reason =
            "its logical sectors have \(sector) bytes, and the source's \(table.type) partition"
            + " table counts in \(table.sectorSize)"
        guard policy.overwrite else {
            throw Refusal(
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
