// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import Digests
internal import Glibc
internal import LinuxIO
internal import Synchronization
internal import SystemPackage
internal import WireProtocol

/// The exports of a server, found by name.
///
/// Devices are looked up at each request, so they may appear and disappear. The table remembers the
/// content of images as long as they do not change, and nothing of devices.
///
/// Names and numbers alone decide what a client may see, before a device is read. So the response
/// time does not reveal hidden devices.
final class ExportTable: Sendable {
    private let offered: Mutex<[ExportSelector]>
    private let changes = Atomic(0)
    let offersAll: Bool
    /// Whether a missing image that is exported by its path may be created.
    let createsImages: Bool
    let view: SystemView
    private let contents = ImageContents()

    init(
        exports: [ExportSelector], offersAll: Bool = false, createsImages: Bool = false,
        view: SystemView = SystemView()
    ) {
        offered = Mutex(exports)
        self.offersAll = offersAll
        self.createsImages = createsImages
        self.view = view
    }

    var exports: [ExportSelector] { offered.withLock { $0 } }

    func replace(_ exports: [ExportSelector]) {
        offered.withLock { $0 = exports }
        changes.wrappingAdd(1, ordering: .releasing)
    }

    var generation: Int { changes.load(ordering: .acquiring) }

    struct Found: Sendable {
        /// The most stable name.
        var id: String
        /// The name that clients see.
        var name: String
        var path: String
        var access: ExportAccess
        /// `nil` for an image or a volume that does not exist yet.
        var description: DeviceDescription?
        /// Keeps `path` valid if it leads through a descriptor.
        var anchor: Anchor?
        /// Whether the export allows creating a missing logical volume.
        var canCreateVolume = false
        /// Whether this is the place of a missing logical volume.
        var isMissingVolume = false
        /// All devices with the exported tag, if there are several: the user meant one of them, and
        /// the server cannot know which.
        var rivals: [InventoryEntry] = []
        /// Devices that do not answer and may have the requested or exported tag.
        var silentRivals: [String] = []
    }

    final class Anchor: Sendable {
        let file: OwnedDescriptor
        init(_ file: consuming OwnedDescriptor) { self.file = file }
        var path: String { "/proc/self/fd/\(file.rawValue)" }
    }

    /// Finds the device, or the place of an image or volume to create, by an id, a tag or a path.
    ///
    /// - Throws: 404 if the client sees no such device; 409 if several devices match; 503 if it
    ///   cannot be determined.
    func find(
        _ name: String, canCreate: Bool = false, for grant: Grant
    ) throws(Problem) -> Found {
        let shortages = Shortages.count
        do throws(Problem) {
            return try lookUp(name, canCreate: canCreate, for: grant)
        } catch {
            guard error.kind == .notFound, let shortage = Shortages.since(shortages) else {
                throw error
            }
            throw Self.unavailable(name, shortage)
        }
    }

    private func lookUp(
        _ name: String, canCreate: Bool, for grant: Grant
    ) throws(Problem) -> Found {
        let survey = DeviceSurvey(view: view, contents: contents)
        if name.begins(with: "/") {
            if var found = try findPath(name, canCreate: canCreate, for: grant, survey) {
                // The path is unambiguous.
                found.silentRivals = []
                return try unambiguous(found, name, for: grant)
            }
            throw Self.notFound(name)
        }
        guard let wanted = Wanted(name) else { throw Self.notFound(name) }
        var matches: [Found] = []
        var silentRivals: [String] = []
        let isMatch = { (found: Found) in
            found.id.isSame(as: name) || found.description?.hasTag(name) == true
        }
        for found in try all(wanted, for: grant, survey, isMatch) {
            if found.description?.mayHaveTag(name) == true { silentRivals.append(found.name) }
            guard isMatch(found) else { continue }
            // A device with two exports counts once, with the rights of both. An export by an
            // ambiguous tag grants nothing.
            if let index = matches.firstIndex(where: { $0.identity == found.identity }) {
                guard found.rivals.isEmpty else { continue }
                guard matches[index].rivals.isEmpty else {
                    matches[index] = found
                    continue
                }
                let canCreate = found.canCreateVolume || matches[index].canCreateVolume
                if found.access == .readWrite { matches[index] = found }
                matches[index].canCreateVolume = canCreate
            } else {
                matches.append(found)
            }
        }
        guard matches.count <= 1 else {
            throw ambiguous(name, matches.map { ($0.name, $0.description?.entry) })
        }
        guard var match = matches.first else { throw Self.notFound(name, silentRivals) }
        match.silentRivals += silentRivals.filter { !match.silentRivals.contains($0) }
        return try unambiguous(match, name, for: grant)
    }

    /// Partitions in a list, of all devices together.
    ///
    /// A table can have thousands, of about 250 bytes each, and a client takes an answer of 16 MiB.
    private static let listedPartitions = 16 << 10

    func list(for grant: Grant) throws(Problem) -> ExportList {
        let shortages = Shortages.count
        let survey = DeviceSurvey(view: view, contents: contents)
        var seen: Set<ByteString> = []
        var records: [ExportRecord] = []
        var room = Self.listedPartitions
        for found in try all(.everything, for: grant, survey, { _ in false }) {
            guard var record = found.record,
                seen.insert(ByteString(found.id + "\0" + found.name)).inserted
            else { continue }
            record.content.limitPartitions(to: &room)
            records.append(record)
        }
        if let shortage = Shortages.since(shortages) { throw Self.unavailable("exports", shortage) }
        let directories = exports.filter(\.isDirectory).compactMap {
            grant.limit(DirectoryRecord(path: $0.text, access: $0.access))
        }
        return ExportList(devices: records, directories: directories)
    }

    static func notFound(_ name: String, _ silentRivals: [String] = []) -> Problem {
        Problem(
            .notFound, status: 404, "There is no such export",
            detail: silentRivals.first.map {
                "no device that answers has it, and \($0) does not answer"
            } ?? "the server exports no such device, or it is not there",
            object: name, operation: "find device",
            advice: "blkferry list URL shows what the server exports.")
    }
}

extension ExportTable.Found {
    init(_ description: DeviceDescription) {
        let path = description.entry.path
        self.init(
            id: description.stableTag ?? ExportTable.nameBasedID(path), name: path, path: path,
            access: .readOnly, description: description)
    }

    var identity: DeviceIdentity? { description?.identity }

    /// `st_rdev` of a block device.
    var number: UInt64? { if case .device(let number) = identity { number } else { nil } }

    /// The description for clients; `nil` if the exported tag is ambiguous.
    var record: ExportRecord? {
        guard let description, rivals.isEmpty else { return nil }
        let entry = description.entry
        return ExportRecord(
            id: id, tags: description.tags + [name], path: name,
            kind: description.isImage ? "image" : "block-device", size: entry.size,
            logicalSector: entry.logicalSector, access: access,
            content: ContentRecord(entry.content ?? .empty), inUseBy: description.uses,
            unreadable: entry.unreadable)
    }
}

extension ExportTable {
    /// A name-based UUID (RFC 9562, version 5) of a path, in the name space of URLs.
    static func nameBasedID(_ path: String) -> String {
        let space: [UInt8] = [
            0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4,
            0x30, 0xc8,
        ]
        var digest = [UInt8](repeating: 0, count: 20)
        let input = space + Array("file://\(path)".utf8)
        do throws(IOError) {
            var hasher = try BlockHasher(try DigestMethod(named: "sha1"), key: nil)
            let (source, target) = (
                input, UnsafeMutableRawBufferPointer.allocate(byteCount: 20, alignment: 8)
            )
            defer { target.deallocate() }
            let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: source.count, alignment: 8)
            defer { copy.deallocate() }
            copy.copyBytes(from: source)
            try hasher.digest(of: UnsafeRawBufferPointer(copy), into: target)
            digest = Array(target)
        } catch {
            // Without SHA-1 the path itself is the id.
            return "NAME=\(path)"
        }
        digest[6] = digest[6] & 0x0F | 0x50
        digest[8] = digest[8] & 0x3F | 0x80
        var text = ""
        for (index, byte) in digest.prefix(16).enumerated() {
            if [4, 6, 8, 10].contains(index) { text += "-" }
            text += hexadecimal([byte])
        }
        return "NAME=\(text)"
    }
}
