// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import WireProtocol

/// Names that several devices have, such as the UUID of a file system on a volume and its snapshots.
extension ExportTable {
    /// Makes sure that what was found is the one device that was exported.
    func unambiguous(_ found: Found, _ name: String, for grant: Grant) throws(Problem) -> Found {
        guard found.rivals.isEmpty else {
            throw ambiguous(
                name, found.rivals.map { ($0.path, $0) }, isTold: grant.selectors == nil)
        }
        return found
    }

    /// Why a name is none of one device.
    ///
    /// - Parameters:
    ///   - name: what the client has asked for.
    ///   - matches: the devices that have it.
    ///   - isTold: whether the client may know what else there is.
    /// - Returns: the answer.
    func ambiguous(
        _ name: String, _ matches: [(name: String, entry: InventoryEntry?)], isTold: Bool = true
    ) -> Problem {
        var problem = Problem(
            .ambiguous, status: 409, "The selector is ambiguous",
            detail: "\(matches.count) devices have what it is exported by")
        problem.object = name
        problem.cause = Refusal.Cause.ambiguousSelector.rawValue
        guard isTold else { return problem }
        let entries = matches.compactMap(\.entry)
        let origins = Dictionary(
            zip(entries.map(\.number), KnownVolumes(view).origins(of: entries)),
            uniquingKeysWith: { first, _ in first })
        // An origin that is not among them is no business of the client's.
        let names = matches.map { match in
            let origin = match.entry.flatMap { origins[$0.number] ?? nil }
            let parent = matches.first { origin != nil && $0.entry?.volumeName == origin }
            return match.name + (parent.map { ", a snapshot of \($0.name)" } ?? "")
        }
        problem.detail =
            "\(matches.count) exported devices have it: \(names.joined(separator: "; "))"
        problem.advice = "Name the one that is meant by its path."
        problem.candidates = matches.map(\.name)
        return problem
    }
}
