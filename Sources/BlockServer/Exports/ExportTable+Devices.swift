// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import LogicalVolumes
internal import SystemPackage
internal import WireProtocol

extension ExportTable {
    /// Finds an exported path, another path of an exported device, or an image in an exported
    /// directory.
    func findPath(
        _ path: String, canCreate: Bool, for grant: Grant, _ survey: DeviceSurvey
    ) throws(Problem) -> Found? {
        var best: Found?
        func consider(_ found: Found?) {
            guard let found = found.flatMap(grant.limit) else { return }
            if best?.rivals.isEmpty == true, found.access == .readOnly || !found.rivals.isEmpty {
                return
            }
            best = found
        }
        for export in exports {
            guard case .path(let exported) = export.selector else { continue }
            if export.group != nil || export.canCreate && VolumePlace(exported) != nil {
                consider(try volume(path, in: export, canCreate: canCreate, for: grant, survey))
            } else if export.isDirectory {
                guard path.begins(with: exported), grant.maySee(path) else { continue }
                let rest = String(decoding: path.utf8.dropFirst(exported.utf8.count), as: UTF8.self)
                consider(try image(rest, in: export, canCreate: canCreate, survey))
            } else if exported.isSame(as: path), grant.maySee(export) {
                if let found = try device(at: path, export, survey) {
                    consider(found)
                } else if canCreate {
                    consider(try newImage(at: path, export))
                }
            }
        }
        if let best { return best }
        try checkLinks(path, for: grant)
        // Another name of an exported device: /dev/vg0/root, /dev/disk/by-id/….
        guard path.begins(with: view.dev + "/") else { return nil }
        for found in try devices(byOtherName: path, for: grant, survey) { consider(found) }
        return best
    }

    /// All exports of the device at a path, whatever its exported name is.
    ///
    /// The search looks at the same things whether or not the server has such a device, unless the
    /// client may use it.
    private func devices(
        byOtherName path: String, for grant: Grant, _ survey: DeviceSurvey
    ) throws(Problem) -> [Found] {
        let number = try Self.deviceNumber(at: path)
        let visible = exports.filter(grant.maySee)
        var found: [Found] = []
        for export in visible where !export.isDirectory && export.group == nil {
            guard case .path = export.selector, let number,
                try Self.deviceNumber(at: export.devicePath) == number,
                let device = try self.device(at: export.devicePath, export, survey)
            else { continue }
            found.append(device)
        }
        let groups = visible.filter { $0.group != nil }
        let tags = visible.filter { if case .tag = $0.selector { true } else { false } }
        let isOffered = offersAll && grant.maySeeDevices
        guard isOffered || !groups.isEmpty || !tags.isEmpty else { return found }
        let description: DeviceDescription?
        if tags.isEmpty && !grant.hasTags {
            description = try untagged(number, groups, isOffered: isOffered, for: grant, survey)
        } else {
            // Other devices may have the tag, too.
            let machine = try devicesOfMachine(survey)
            for export in tags {
                found += devices(tagged: export, among: machine).filter { $0.number == number }
            }
            description = number.flatMap { number in
                machine.first { $0.identity == .device(number) }
            }
        }
        guard let description else { return found }
        found += groups.compactMap { Found(description, in: $0) }
        if isOffered, !found.contains(where: \.rivals.isEmpty) { found.append(Found(description)) }
        return found
    }

    private func untagged(
        _ number: UInt64?, _ groups: [ExportSelector], isOffered: Bool, for grant: Grant,
        _ survey: DeviceSurvey
    ) throws(Problem) -> DeviceDescription? {
        try Self.asProblem { () throws(IOError) in
            // Lists the machine's devices even without a number, so that both cases take the same
            // time.
            let names = try survey.names(of: number ?? 0)
            guard let number, let names else { return nil }
            let isInGroup = groups.contains { $0.group == names.volume?.group }
            let path = names.volume.map { "/dev/\($0.text)" } ?? names.path
            guard
                isInGroup && grant.maySee(path, number: number)
                    || isOffered && grant.maySee(names.path, number: number)
            else { return nil }
            return try survey.describe(device: number)
        }
    }

    /// The number of the block device at a path; 503 if that cannot be determined.
    private static func deviceNumber(at path: String) throws(Problem) -> UInt64? {
        do throws(Errno) {
            let status = try FileStatus(path: path)
            return status.kind == .blockDevice ? status.device : nil
        } catch {
            try require(absenceOf: path, by: error)
            return nil
        }
    }

    static func asProblem<Result>(
        _ body: () throws(IOError) -> Result
    ) throws(Problem) -> Result {
        do throws(IOError) { return try body() } catch { throw Problem(error) }
    }

    private func devices(
        tagged export: ExportSelector, among machine: [DeviceDescription]
    ) -> [Found] {
        let matches = machine.filter { $0.hasTag(export.text) }
        let rivals = matches.count > 1 ? matches.map(\.entry) : []
        let silentRivals = machine.filter { $0.mayHaveTag(export.text) }.map(\.entry.path)
        return matches.map {
            Found(
                id: $0.stableTag ?? export.text, name: $0.entry.path, path: $0.entry.path,
                access: export.access, description: $0, canCreateVolume: export.canCreate,
                rivals: rivals, silentRivals: silentRivals)
        }
    }

    /// Describes all existing exports that may match; looks at none that `grant` hides.
    ///
    /// - Parameter isMatch: whether a device will be opened; the others lose their anchors, since
    ///   there may be more images than descriptors.
    /// - Throws: 503 if the existing devices cannot be determined.
    func all(
        _ wanted: Wanted, for grant: Grant, _ survey: DeviceSurvey, _ isMatch: (Found) -> Bool
    ) throws(Problem) -> [Found] {
        var found: [Found] = []
        func add(_ one: Found) {
            var one = one
            if !isMatch(one) { one.anchor = nil }
            found.append(one)
        }
        let visible = exports.filter(grant.maySee)
        let isOffered = offersAll && grant.maySeeDevices
        let needsMachine =
            isOffered
            || visible.contains {
                if case .tag = $0.selector { true } else { $0.group != nil }
            }
        let machine = needsMachine ? try devicesOfMachine(survey) : []
        for export in visible {
            switch export.selector {
            case .tag:
                found += devices(tagged: export, among: machine)
            case .path where export.group != nil:
                found += machine.compactMap { Found($0, in: export) }
            case .path where !export.isDirectory:
                guard wanted.mayBe(export.devicePath) else { continue }
                if let device = try device(at: export.devicePath, export, survey) { add(device) }
            case .path(let path) where wanted.mayBeInDirectory:
                for name in try namesOfImages(in: path)
                where grant.maySee(path + name) && wanted.mayBe(path + name) {
                    if let image = try listedImage(name, in: export, survey) { add(image) }
                }
            case .path: break
            }
        }
        if isOffered {
            found += machine.filter { device in
                !found.contains { $0.identity == device.identity && $0.rivals.isEmpty }
            }.map { Found($0) }
        }
        return found.compactMap(grant.limit)
    }

    /// An image for a list; an I/O error of one image does not fail the whole list.
    private func listedImage(
        _ name: String, in export: ExportSelector, _ survey: DeviceSurvey
    ) throws(Problem) -> Found? {
        do throws(Problem) {
            return try image(name, in: export, canCreate: false, survey)
        } catch {
            guard error.errno == Int(Errno.ioError.rawValue) else { throw error }
            let path = export.text + name
            return Found(
                id: Self.nameBasedID(path), name: path, path: path, access: export.access,
                description: DeviceDescription(unreadableImage: path, reason: error.detail))
        }
    }

    private func devicesOfMachine(_ survey: DeviceSurvey) throws(Problem) -> [DeviceDescription] {
        try Self.asProblem { () throws(IOError) in
            try survey.devices().filter(\.entry.hasNode)
        }
    }
}
