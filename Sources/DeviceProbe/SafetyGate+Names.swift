// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO

/// A relative path that LVM's programs would take for a volume: `vg1/replica`, which is a file where
/// the working directory has a directory `vg1`.
struct DoubtfulName: Sendable {
    let text: String
    let group: String
    /// Without the pool of a new one.
    let volume: String

    /// `nil` for what is certainly a path or a tag.
    init?(_ text: String) {
        guard case .path = Selector(text), !text.hasPrefix(".") else { return nil }
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, !parts.contains("") else { return nil }
        self.text = text
        group = String(parts[0])
        volume = parts[1].split(separator: "@").first.map(String.init) ?? ""
    }

    /// Why an existing file is not taken: a volume that is not active has the name as well.
    func refusalOfFile(as name: String, view: SystemView) -> ProbeError? {
        guard isInactive(view) else { return nil }
        return .refused(
            Refusal(
                .ambiguousSelector, name,
                "there is a file of that name, and a logical volume, which is not active",
                advice: "Say ./\(text), or activate the volume: \(activation)"))
    }

    /// Why no file is created: it would be in a directory that has the name of a volume group.
    func refusalOfNewFile(as name: String, view: SystemView) -> ProbeError? {
        guard KnownVolumes(view).groups()?.contains(group) == true else { return nil }
        let start = isInactive(view) ? "To activate the volume: \(activation); for" : "For"
        return .refused(
            Refusal(
                .ambiguousSelector, name, "it is no active logical volume",
                advice: "\(start) the file write ./\(text)."))
    }

    private var activation: String { "lvchange --activate y \(group)/\(volume)" }

    /// Whether LVM knows the volume; that it is not active is known already.
    private func isInactive(_ view: SystemView) -> Bool {
        let name = VolumeName(group: group, volume: volume)
        return KnownVolumes(view).volumes()?.contains { $0.name == name } == true
    }
}

extension Entrance {
    /// Makes sure that a file is what the user means.
    ///
    /// - Parameters:
    ///   - text: what the user wrote.
    ///   - exists: whether there is such a file.
    /// - Throws: a refusal where a logical volume may be meant; a failure where one is to be made
    ///   that cannot have the name.
    func checkName(_ text: String, exists: Bool) throws(ProbeError) {
        guard let doubtful = DoubtfulName(text) else { return }
        if policy.creates { try checkNameOfNewVolume(doubtful, exists: exists) }
        let no =
            exists
            ? doubtful.refusalOfFile(as: name, view: view)
            : doubtful.refusalOfNewFile(as: name, view: view)
        if let no { throw no }
    }

    private func checkNameOfNewVolume(
        _ doubtful: DoubtfulName, exists: Bool
    ) throws(ProbeError) {
        let isGroup = KnownVolumes(view).groups()?.contains(doubtful.group) == true
        if exists, isGroup {
            throw refusal(
                .ambiguousSelector, "there is a file of that name",
                advice: "For the file write ./\(doubtful.text), for a volume /dev/\(doubtful.text)."
            )
        }
        guard !exists, VolumePlace(doubtful.text) == nil,
            isGroup || !FileStatus.exists(doubtful.group)
        else { return }
        throw .failed(
            IOError(
                name, "create", reason: "no logical volume can have that name",
                advice: "Letters, digits, and the characters + _ . - make one; see lvm(8)."))
    }
}
