// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import DeviceProbe
internal import Digests
internal import Glibc
internal import LinuxIO
internal import Synchronization
internal import SystemPackage
internal import WireProtocol

/// What a server offers, and how a name in a URL finds it.
///
/// Nothing is remembered: a device that appears is found when it is asked for, and one that is
/// gone is not.
final class ExportTable: Sendable {
    private let offered: Mutex<[ExportSelector]>
    /// Every block device of the machine as well, for reading.
    private let offersAll: Bool
    /// Whether an image that is exported by its path may be created.
    private let createsImages: Bool
    let view: SystemView

    init(
        exports: [ExportSelector], offersAll: Bool = false, createsImages: Bool = false,
        view: SystemView = SystemView()
    ) {
        offered = Mutex(exports)
        self.offersAll = offersAll
        self.createsImages = createsImages
        self.view = view
    }

    private var exports: [ExportSelector] { offered.withLock { $0 } }

    /// Offers others from now on.
    func replace(_ exports: [ExportSelector]) { offered.withLock { $0 = exports } }

    /// A device that a name has led to.
    struct Found: Sendable {
        /// The most stable name.
        var id: String
        /// What it is called to clients.
        var name: String
        /// What it is opened by.
        var path: String
        var access: ExportAccess
        /// `nil` for an image that is yet to be created.
        var description: DeviceDescription?
        /// Keeps `path` valid, where that leads through a descriptor.
        var anchor: Anchor?
        /// Whether the export lets a logical volume be made where it is missing.
        var canCreateVolume = false
        /// Whether it is the place of a logical volume that is missing.
        var isMissingVolume = false
        /// All devices that have the tag that it was exported by, where those are several: the user
        /// has exported one of them, and nobody knows which.
        var rivals: [InventoryEntry] = []
    }

    /// A descriptor that a path under /proc/self/fd leads through.
    final class Anchor: Sendable {
        let file: OwnedDescriptor
        init(_ file: consuming OwnedDescriptor) { self.file = file }
        var path: String { "/proc/self/fd/\(file.rawValue)" }
    }

    /// Finds what a client asks for.
    ///
    /// - Parameters:
    ///   - name: an id, a tag or a path.
    ///   - canCreate: whether an image that is not there may be meant.
    ///   - grant: what the client may see and do.
    /// - Returns: the device, or the place of an image that may be created.
    /// - Throws: 404 for what is not exported, not there, or not for this client; 409 where several
    ///   devices match.
    func find(
        _ name: String, canCreate: Bool = false, for grant: Grant
    ) throws(Problem) -> Found {
        if name.hasPrefix("/") {
            if let found = try findPath(name, canCreate: canCreate, for: grant) {
                return try unambiguous(found, name, for: grant)
            }
            throw Self.notFound(name)
        }
        var matches: [Found] = []
        for found in try all().compactMap(grant.limit) {
            guard found.id == name || found.description?.hasTag(name) == true else { continue }
            // The same device under two exports counts once, with what the one allows more; by a tag
            // that others have as well nothing is allowed.
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
        guard let match = matches.first else { throw Self.notFound(name) }
        return try unambiguous(match, name, for: grant)
    }

    /// Everything that is offered and there, and for this client.
    func list(for grant: Grant) throws(Problem) -> ExportList {
        var seen: Set<String> = []
        var records: [ExportRecord] = []
        for found in try all().compactMap(grant.limit) {
            guard let record = found.record, seen.insert(found.id + "\0" + found.name).inserted
            else { continue }
            records.append(record)
        }
        let directories = exports.filter(\.isDirectory).compactMap {
            grant.limit(DirectoryRecord(path: $0.text, access: $0.access))
        }
        return ExportList(devices: records, directories: directories)
    }

    static func notFound(_ name: String) -> Problem {
        var problem = Problem(
            .notFound, status: 404, "There is no such export",
            detail: "the server exports no such device, or it is not there")
        problem.object = name
        problem.operation = "find device"
        problem.advice = "blkferry list URL shows what the server exports."
        return problem
    }
}

extension FileIdentity {
    init(_ status: FileStatus) { self.init(fileSystem: status.fileSystem, inode: status.inode) }
}

extension ExportTable.Found {
    var identity: DeviceIdentity? { description?.identity }

    /// What clients are told of it.
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
    /// A path is an exported one, or that of an exported device, or an image in a directory.
    private func findPath(
        _ path: String, canCreate: Bool, for grant: Grant
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
                consider(try volume(path, in: export, canCreate: canCreate))
            } else if export.isDirectory {
                guard path.hasPrefix(exported) else { continue }
                let rest = String(path.dropFirst(exported.count))
                consider(image(rest, in: export, canCreate: canCreate))
            } else if exported == path {
                // As it was exported: text that is equal may be of other bytes.
                let found = try device(at: exported, export)
                consider(found ?? (canCreate ? newImage(at: exported, export) : nil))
            }
        }
        if let best { return best }
        // Another name of an exported device: /dev/vg0/root, /dev/disk/by-id/….
        guard path.hasPrefix(view.dev + "/"), let status = try? FileStatus(path: path),
            status.kind == .blockDevice
        else { return nil }
        for found in try all() where found.identity == .device(status.device) { consider(found) }
        return best
    }

    /// All exports that are there, described.
    private func all() throws(Problem) -> [Found] {
        var found: [Found] = []
        let needsMachine =
            offersAll
            || exports.contains {
                if case .tag = $0.selector { true } else { $0.group != nil }
            }
        let machine = needsMachine ? try devicesOfMachine() : []
        for export in exports {
            switch export.selector {
            case .tag:
                let matches = machine.filter { $0.hasTag(export.text) }
                let rivals = matches.count > 1 ? matches.map(\.entry) : []
                found += matches.map {
                    Found(
                        id: $0.stableTag ?? export.text, name: $0.entry.path, path: $0.entry.path,
                        access: export.access, description: $0, canCreateVolume: export.canCreate,
                        rivals: rivals)
                }
            case .path where export.group != nil:
                found += machine.compactMap { Found($0, in: export) }
            case .path(let path) where !export.isDirectory:
                // The pool of a volume that may be made is no part of its name.
                let path = export.canCreate ? VolumePlace(path)?.selector ?? path : path
                if let device = try device(at: path, export) { found.append(device) }
            case .path(let path):
                found += namesOfImages(in: path).compactMap {
                    image($0, in: export, canCreate: false)
                }
            }
        }
        guard offersAll else { return found }
        return found
            + machine.filter { device in
                !found.contains { $0.identity == device.identity && $0.rivals.isEmpty }
            }.map {
                Found(
                    id: $0.stableTag ?? Self.nameBasedID($0.entry.path), name: $0.entry.path,
                    path: $0.entry.path, access: .readOnly, description: $0)
            }
    }

    func devicesOfMachine() throws(Problem) -> [DeviceDescription] {
        do throws(ProbeError) {
            return try describeAll(view: view).filter(\.entry.hasNode)
        } catch {
            throw Problem(error)
        }
    }

    /// A device or image exported by its path; `nil` where it is not there.
    func device(at path: String, _ export: ExportSelector) throws(Problem) -> Found? {
        guard let description = try? describe(path: path, as: path, view: view) else { return nil }
        return Found(
            id: description.stableTag ?? Self.nameBasedID(path), name: path, path: path,
            access: export.access, description: description, canCreateVolume: export.canCreate)
    }

    /// The place of an image that is exported by its path and is not there; `nil` where it is, or
    /// none is to be created.
    private func newImage(at path: String, _ export: ExportSelector) -> Found? {
        guard createsImages, export.access == .readWrite, (try? FileStatus(path: path)) == nil
        else { return nil }
        return Found(
            id: Self.nameBasedID(path), name: path, path: path, access: export.access,
            description: nil)
    }

    /// An image in an exported directory, reached without leaving it and without symbolic links;
    /// `nil` where there is none.
    private func image(
        _ name: String, in export: ExportSelector, canCreate: Bool
    ) -> Found? {
        // By bytes, as the kernel sees it: a combining mark hides a slash from characters.
        let slash = UInt8(ascii: "/")
        guard !name.isEmpty, name.utf8.last != slash,
            !name.utf8.split(separator: slash).contains(where: { $0.elementsEqual("..".utf8) }),
            let directory = try? OwnedDescriptor.open(
                export.text, flags: clb_O_PATH | O_DIRECTORY)
        else { return nil }
        let full = export.text + name
        let id = Self.nameBasedID(full)
        if let file = Self.open(name, beneath: directory, flags: clb_O_PATH) {
            // A device file there would be a way out of the directory.
            guard (try? file.status().kind) == .regular else { return nil }
            let anchor = Anchor(file)
            guard let description = try? describe(path: anchor.path, as: full, view: view)
            else { return nil }
            return Found(
                id: id, name: full, path: anchor.path, access: export.access,
                description: description, anchor: anchor)
        }
        guard canCreate, currentErrno() == .noSuchFileOrDirectory,
            let last = name.utf8.split(separator: slash).last.flatMap({ String($0) })
        else { return nil }
        let parent = String(name.utf8.dropLast(last.utf8.count)) ?? ""
        guard
            let folder = Self.open(
                parent.isEmpty ? "." : parent, beneath: directory,
                flags: clb_O_PATH | O_DIRECTORY)
        else { return nil }
        let anchor = Anchor(folder)
        return Found(
            id: id, name: full, path: "\(anchor.path)/\(last)", access: export.access,
            description: nil, anchor: anchor)
    }

    /// Whether a path still leads to an image in an exported directory.
    func leads(_ path: String, to file: FileIdentity) -> Bool {
        exports.contains { export in
            guard export.isDirectory, path.hasPrefix(export.text),
                let directory = try? OwnedDescriptor.open(
                    export.text, flags: clb_O_PATH | O_DIRECTORY),
                let image = Self.open(
                    String(path.dropFirst(export.text.count)), beneath: directory,
                    flags: clb_O_PATH),
                let status = try? image.status()
            else { return false }
            return FileIdentity(status) == file
        }
    }

    /// The corresponding C function is `openat2`.
    private static func open(
        _ name: String, beneath directory: borrowing OwnedDescriptor, flags: Int32
    ) -> OwnedDescriptor? {
        let descriptor = directory.rawValue
        guard let file = try? retryingInterrupts({ clb_open_beneath(descriptor, name, flags) })
        else { return nil }
        return OwnedDescriptor(owning: file)
    }

    private func namesOfImages(in directory: String) -> [String] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) {
                    String(validatingCString: $0)
                }
            }
            guard let name, !name.hasPrefix(".") else { continue }
            names.append(name)
        }
        return names.sorted()
    }

    /// A name-based UUID (RFC 9562, version 5) of a path, in the name space of URLs.
    static func nameBasedID(_ path: String) -> String {
        let space: [UInt8] = [
            0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4,
            0x30, 0xc8,
        ]
        var digest = [UInt8](repeating: 0, count: 20)
        let input = space + Array("file://\(path)".utf8)
        do throws(DigestError) {
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
            // Without SHA-1 the path itself has to do.
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
