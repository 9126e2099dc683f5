// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import LogicalVolumes

/// A relative path that LVM's programs would take for a volume.
///
/// `vg1/replica` is also a file if the working directory has a directory `vg1`.
struct AmbiguousPath: Sendable {
    let text: String
    /// Without the pool of a new volume.
    let volume: VolumeName

    /// `nil` if it is certainly a path or a tag.
    init?(_ selector: Selector) {
        guard case .path(let text) = selector, !text.hasPrefix("."),
            var volume = VolumeName(text[...])
        else { return nil }
        volume.volume = volume.volume.split(separator: "@").first.map(String.init) ?? ""
        self.text = text
        self.volume = volume
    }

    /// Refuses an existing file if an inactive volume has the name as well.
    func refusalOfFile(as name: String, view: SystemView) -> IOError? {
        do throws(IOError) {
            guard try isInactive(view) else { return nil }
        } catch {
            return refusalWithoutAnswer(as: name)
        }
        return .refusal(
            .ambiguousSelector, name,
            "there is a file of that name, and a logical volume, which is not active",
            advice: "Say ./\(text), or activate the volume: \(activation)")
    }

    /// Refuses to create a file in a directory that has the name of a volume group.
    func refusalOfNewFile(as name: String, view: SystemView) -> IOError? {
        let start: String
        do throws(IOError) {
            guard try isInKnownGroup(view) else { return nil }
            start = try isInactive(view) ? "To activate the volume: \(activation); for" : "For"
        } catch {
            return refusalWithoutAnswer(as: name)
        }
        return .refusal(
            .ambiguousSelector, name, "it is no active logical volume",
            advice: "\(start) the file write ./\(text).")
    }

    private var activation: String { "lvchange --activate y \(volume.text)" }

    func refusalWithoutAnswer(as name: String) -> IOError {
        .refusal(
            .ambiguousSelector, name, "LVM does not answer whether it is a logical volume",
            advice: "For the file write ./\(text).")
    }

    func isInKnownGroup(_ view: SystemView) throws(IOError) -> Bool {
        try asking(view) { lvm throws(IOError) in try lvm.groupNames().contains(volume.group) }
    }

    /// Whether LVM knows the volume, which is not active.
    private func isInactive(_ view: SystemView) throws(IOError) -> Bool {
        try asking(view) { lvm throws(IOError) in try lvm.hasVolume(volume) }
    }

    /// Asks LVM, which gets as much time as a device that is probed; `false` if it cannot be asked.
    ///
    /// - Throws: only if LVM does not answer in time.
    private func asking(
        _ view: SystemView, _ question: (LVM) throws(IOError) -> Bool
    ) throws(IOError) -> Bool {
        guard let lvm = LVM(in: view, patience: Inventory.patience) else { return false }
        do throws(IOError) { return try question(lvm) } catch {
            if error.kind == .noAnswer { throw error }
            return false
        }
    }
}

extension TargetAdmission {
    /// Checks that the user means a file, and not a logical volume that exists or is to be created.
    func checkName(_ target: Selector, exists: Bool) throws(IOError) {
        guard let ambiguous = AmbiguousPath(target) else { return }
        if policy.creates { try checkNameOfNewVolume(ambiguous, exists: exists) }
        let no =
            exists
            ? ambiguous.refusalOfFile(as: name, view: view)
            : ambiguous.refusalOfNewFile(as: name, view: view)
        if let no { throw no }
    }

    private func checkNameOfNewVolume(
        _ ambiguous: AmbiguousPath, exists: Bool
    ) throws(IOError) {
        let isGroup: Bool
        do throws(IOError) { isGroup = try ambiguous.isInKnownGroup(view) } catch {
            throw ambiguous.refusalWithoutAnswer(as: name)
        }
        if exists, isGroup {
            throw refusal(
                .ambiguousSelector, "there is a file of that name",
                advice:
                    "For the file write ./\(ambiguous.text), for a volume /dev/\(ambiguous.text)."
            )
        }
        guard !exists, VolumePlace(ambiguous.text) == nil,
            isGroup || !FileStatus.exists(ambiguous.volume.group)
        else { return }
        throw IOError(
            name, "create", reason: "no logical volume can have that name",
            advice: "Letters, digits, and the characters + _ . - make one; see lvm(8).")
    }
}
