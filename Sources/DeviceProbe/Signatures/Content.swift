// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices

/// The content of a device, as far as signatures show it.
package enum Content: Hashable, Sendable {
    /// No known signature.
    case empty
    /// Usually one, a partition table first; a hybrid ISO image is a file system and a disk.
    case signatures([Signature])
    /// Signatures that cannot all be valid, for example leftovers of an earlier use.
    case ambiguous([Signature])
    case unreadable(String)
    case partial(Partial)

    /// The known part of a device that has read errors.
    package struct Partial: Hashable, Sendable {
        /// At least one.
        package var found: [Signature]
        /// Unreadable ranges near the start and the end, in bytes.
        package var missing: [ByteRange]
        package var reason: String

        package init(_ found: [Signature], missing: [ByteRange], reason: String) {
            self.found = found
            self.missing = missing
            self.reason = reason
        }

        func lacks(_ signature: Signature) -> Bool {
            guard let place = signature.places.first else { return false }
            let unit = Fingerprint.superblock
            let block = ByteRange(offset: place / unit * unit, length: unit)
            return missing.contains { $0.overlaps(block) }
        }
    }

    /// All found signatures, even if they contradict each other.
    package var found: [Signature] {
        switch self {
        case .empty, .unreadable: []
        case .signatures(let found), .ambiguous(let found): found
        case .partial(let partial): partial.found
        }
    }

    /// The signature that shows what the device is; `nil` if that is unclear.
    package var main: Signature? {
        if case .signatures(let found) = self { found.first } else { nil }
    }

    /// The table that the kernel uses, never a backup that something else has replaced.
    package var partitionTable: Signature? {
        found.first { $0.usage == .partitionTable && !$0.isBackupTable }
    }

    /// Whether a signature proves that this is a replica of the source, and nothing contradicts
    /// that.
    ///
    /// With `--skip-unreadable`, a run does not change the target where the source cannot be read.
    /// So the target's content there proves nothing, and is not lost either.
    package func isReplica(of source: Content) -> Bool {
        switch self {
        case .empty, .unreadable, .partial: return false
        case .signatures(let mine), .ambiguous(let mine):
            let proofs = mine.filter { $0.isOn(source) }
            // The backup of a GPT may survive mkfs(8), so it proves nothing beside other content.
            let isProven =
                proofs.contains { !$0.isBackupTable }
                || !proofs.isEmpty && proofs.count == mine.count
            return isProven && lost(to: source).isEmpty
        }
    }

    /// The signatures that a replica of the source would lose.
    package func lost(to source: Content) -> [Signature] {
        found.filter { signature in
            if signature.isOn(source) || signature.isInPartition { return false }
            if case .partial(let partial) = source { return !partial.lacks(signature) }
            return true
        }
    }

    func map(_ change: (Signature) -> Signature) -> Content {
        switch self {
        case .signatures(let found): return .signatures(found.map(change))
        case .ambiguous(let found): return .ambiguous(found.map(change))
        case .partial(var partial):
            partial.found = partial.found.map(change)
            return .partial(partial)
        case .empty, .unreadable: return self
        }
    }

    func filter(_ isKept: (Signature) -> Bool) -> Content {
        let kept = found.filter(isKept)
        if kept.count == found.count { return self }
        switch self {
        case .partial(let partial) where kept.isEmpty: return .unreadable(partial.reason)
        case .partial(var partial):
            partial.found = kept
            return .partial(partial)
        case .ambiguous where kept.count > 1: return .ambiguous(kept)
        default: return kept.isEmpty ? .empty : .signatures(kept)
        }
    }
}

extension Signature {
    fileprivate func isOn(_ content: Content) -> Bool {
        if content.found.contains(where: { isCopy(of: $0) }) { return true }
        // Beside a bad sector a target with larger sectors lacks more than the source, such as the
        // primary GPT.
        guard case .partial(let partial) = content, isBackupTable, uuid != nil else { return false }
        return partial.found.contains {
            $0.type == type && $0.uuid == uuid && Set(places).isSubset(of: $0.places)
        }
    }
}

extension Content: CustomStringConvertible {
    package var description: String {
        switch self {
        case .empty: "nothing"
        case .signatures(let found): found.list
        case .ambiguous(let found): "contradictory signatures: \(found.list)"
        case .unreadable(let reason): "unknown content (\(reason))"
        case .partial(let partial): "\(partial.found.list) and unknown content (\(partial.reason))"
        }
    }
}

extension [Signature] {
    var list: String { map(\.description).joined(separator: "; ") }
}
