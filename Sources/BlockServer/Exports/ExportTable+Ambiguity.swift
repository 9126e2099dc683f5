// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import LinuxIO
internal import LogicalVolumes
internal import WireProtocol

/// Names that several devices share, such as the file system's UUID on a volume and its snapshots.
extension ExportTable {
    /// Checks that no other device has the tag by which the found device was exported.
    func unambiguous(_ found: Found, _ name: String, for grant: Grant) throws(Problem) -> Found {
        guard found.rivals.isEmpty else {
            throw ambiguous(
                name, found.rivals.map { ($0.path, $0) }, showsNames: grant.selectors == nil)
        }
        return found
    }

    /// The 409 for a name that matches several devices; `showsNames` lists these.
    func ambiguous(
        _ name: String, _ matches: [(name: String, entry: InventoryEntry?)], showsNames: Bool = true
    ) -> Problem {
        var problem = Problem(
            .ambiguous, status: 409, "The selector is ambiguous",
            detail: "\(matches.count) devices have the tag that it is exported by", object: name,
            cause: .ambiguousSelector)
        guard showsNames else { return problem }
        let entries = matches.compactMap(\.entry)
        let origins = Dictionary(
            zip(entries.map(\.number), view.origins(of: entries)),
            uniquingKeysWith: { first, _ in first })
        // The client may not see an origin that is not among the matches.
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
