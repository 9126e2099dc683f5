// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

extension TargetRules {
    /// Signatures that would remain behind the replica on a larger target.
    ///
    /// libblkid looks for many superblocks at the end of a device: md, firmware RAID, ZFS, and the
    /// backup of a GPT. The backup of the source's own GPT may stay.
    func leftBehind(on target: TargetFacts) -> [Signature] {
        guard sizePolicy(for: target) == .prefix, target.size > source.size else { return [] }
        let table = source.content.partitionTable
        return target.content.found.filter { signature in
            let isOwnBackup =
                signature.type == "gpt" && table?.type == "gpt" && table?.uuid != nil
                && signature.uuid == table?.uuid
            return !isOwnBackup
                && signature.places.contains { $0 > source.size - (signature.magicLength ?? 1) }
        }
    }

    /// A refusal that names everything that would be lost.
    func refusal(of target: TargetFacts, _ behind: [Signature]) -> IOError {
        // Signatures behind the source's end are listed separately.
        let lost = target.content.lost(to: source.content).filter { !behind.contains($0) }
        var things = lost.list
        if case .ambiguous = target.content, lost.count > 1 {
            things = "contradictory signatures: \(things)"
        }
        if !behind.isEmpty {
            things += (lost.isEmpty ? "" : "; ") + "\(behind.list) behind the source's end"
        }
        let reason: String
        switch target.content {
        case .unreadable(let why): reason = "its content cannot be determined: \(why)"
        case .partial(let partial):
            let known = partial.found.list
            reason =
                "it holds \(known), and its other content cannot be determined: \(partial.reason)"
        default:
            if let format = lost.first.flatMap({ FileFormat.named($0.type) }), lost.count == 1,
                behind.isEmpty, target.kind == .image
            {
                reason = "it is \(format.phrase), which would be lost"
            } else if things.isEmpty {
                // All signatures lie where the source cannot be read.
                reason =
                    "it holds \(target.content), and the source cannot be read where it would show "
                    + "the same"
            } else {
                reason = "it holds \(things), which would be lost"
            }
        }
        return .refusal(
            .signature, target.name, reason, advice: "If that is what you want, say --overwrite.")
    }

    /// Refuses an image of unknown content whose size is not a multiple of sectors.
    ///
    /// The source's own size is allowed, since an earlier or interrupted run may have left it. A
    /// source that is no disk image has replicas of such a size, too.
    func refusalOfOddSize(_ target: TargetFacts) -> IOError? {
        guard target.kind == .image, target.hasData, !policy.overwrite,
            !target.size.isMultiple(of: 512),
            !source.isSizeKnown || target.size != source.size && source.size.isMultiple(of: 512)
        else { return nil }
        return .refusal(
            .signature, target.name,
            "its size, \(target.size) bytes, is no multiple of 512, so it is no disk image",
            advice: source.isSizeKnown
                ? "If it may be lost, say --overwrite."
                : "If it may be lost, say --overwrite; if it is the stream's size, say --size.")
    }

    /// Refuses to write a packed disk image to a device as it is, and warns if it is written to an
    /// image, or with `--overwrite`.
    ///
    /// A device that already has the same one is its replica.
    func checkFormat(_ target: TargetFacts, _ verdict: inout Verdict) throws(IOError) {
        if verdict.isReplica { return }
        if target.kind == .blockDevice, let no = refusalOfPacking(target.name) { throw no }
        verdict.warnings += source.packingWarnings
    }

    /// A refusal to write a packed disk image to a device; `nil` if the source is none, or with
    /// `--overwrite`.
    func refusalOfPacking(_ target: String) -> IOError? {
        guard !policy.overwrite, let unpacking = source.unpackingAdvice else { return nil }
        return .refusal(
            .packed, target,
            "the source, \(source.name), is \(unpacking.format.phrase), and would be written as it "
                + "is",
            advice: unpacking.advice.dropLast() + "; --overwrite writes it as it is.")
    }
}

extension SourceFacts {
    /// A warning if the source is a packed disk image, which is written as it is.
    var packingWarnings: [String] {
        unpackingAdvice.map {
            ["\(name): it is \($0.format.phrase), and is written as it is; \($0.advice.dropLast())"]
        } ?? []
    }

    /// The format in which the source is packed, and how to unpack it.
    var unpackingAdvice: (format: FileFormat, advice: String)? {
        for signature in content.found where signature.usage == .other {
            if let format = FileFormat.named(signature.type),
                let advice = isStream ? format.adviceForStream : format.advice(name)
            {
                return (format, advice)
            }
        }
        return nil
    }
}

extension Signature {
    /// The ranges from `start` to `end` that must be zeroed to hide the signature, in bytes,
    /// ascending.
    func magicNumbers(from start: Int, to end: Int) -> [ByteRange] {
        let ranges = places.map { place in
            type == "zfs_member"
                ? ByteRange(
                    offset: place / Self.zfsLabel * Self.zfsLabel, length: Self.zfsLabel)
                : ByteRange(offset: place, length: magicLength ?? 1)
        }
        // One label holds several uberblocks.
        let parts = Set(ranges.compactMap { $0.intersection(ByteRange(start, to: end)) })
        return parts.sorted { $0.offset < $1.offset }
    }
}
