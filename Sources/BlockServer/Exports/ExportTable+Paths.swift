// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// Devices and images by path, without symbolic links that another user may change (`TrustedPath`).
extension ExportTable {
    /// A device or image exported by its path; `nil` behind another user's symbolic link.
    ///
    /// - Throws: 503 if that cannot be determined.
    func device(
        at path: String, _ export: ExportSelector, _ survey: DeviceSurvey
    ) throws(Problem) -> Found? {
        guard let place = try Self.place(path) else { return nil }
        guard let kind = try? place.file.status().kind else { return nil }
        // A device is opened by name, so no other user may be able to change what the name means.
        guard place.isTrusted || kind == .regular else { return nil }
        let anchor = place.isTrusted ? nil : Anchor(place.take())
        let opened = anchor?.path ?? path
        guard let description = try Self.description(of: opened, as: path, survey) else {
            return nil
        }
        return Found(
            id: description.stableTag ?? Self.nameBasedID(path), name: path, path: opened,
            access: export.access, description: description, anchor: anchor,
            canCreateVolume: export.canCreate)
    }

    /// The file at a path of the configuration; 503 if that cannot be determined.
    private static func place(_ path: String) throws(Problem) -> TrustedPath? {
        do throws(TrustedPath.Failure) {
            return try TrustedPath(path)
        } catch {
            if case .system(let errno) = error { try require(absenceOf: path, by: errno) }
            return nil
        }
    }

    private static func description(
        of path: String, as name: String, _ survey: DeviceSurvey
    ) throws(Problem) -> DeviceDescription? {
        do throws(IOError) {
            return try survey.describe(path: path, as: name)
        } catch {
            try require(absenceOf: name, by: error.errno)
            return nil
        }
    }

    /// Throws a 403 if the client may see an export of this path, but a symbolic link hides it.
    func checkLinks(_ path: String, for grant: Grant) throws(Problem) {
        let isExported = exports.contains { export in
            !export.isDirectory && export.group == nil && export.text.isSame(as: path)
        }
        guard isExported,
            grant.limit(Found(id: "", name: path, path: path, access: .readOnly)) != nil,
            let link = TrustedPath.untrustedLink(in: path)
        else { return }
        throw Problem(
            .access, status: 403, "The export leads through a symbolic link",
            detail: "\(link) is a symbolic link that another user of the server may change",
            object: path, advice: "The server exports it by the path that the link leads to.")
    }

    /// The place of an image that is exported by its path; `nil` unless the image is missing and
    /// may be created.
    func newImage(at path: String, _ export: ExportSelector) throws(Problem) -> Found? {
        guard createsImages, export.access == .readWrite,
            let (parent, last) = Self.split(path), last != "..", last != "."
        else { return nil }
        do throws(TrustedPath.Failure) {
            _ = try TrustedPath(path)
            return nil
        } catch {
            guard case .system(let errno) = error else { return nil }
            try Self.require(absenceOf: path, by: errno)
            guard errno == .noSuchFileOrDirectory else { return nil }
        }
        // If the directory is missing as well, the safety gate refuses with that reason.
        guard let folder = try? TrustedPath(parent), !folder.isTrusted else {
            try Self.checkNew(path)
            return Found(
                id: Self.nameBasedID(path), name: path, path: path, access: export.access)
        }
        try Self.checkNew(path)
        let anchor = Anchor(folder.take())
        return Found(
            id: Self.nameBasedID(path), name: path, path: "\(anchor.path)/\(last)",
            access: export.access, anchor: anchor)
    }

    /// Refuses control characters in the name of a new file, which could forge output.
    private static func checkNew(_ name: String) throws(Problem) {
        guard name.unicodeScalars.contains(where: isControl) else { return }
        throw Problem(
            .refusal(
                .wrongKind, escaped(name), "a new image gets no name with control characters",
                advice: "Give it a name without them."))
    }

    private static func split(_ path: String) -> (parent: String, last: String)? {
        let slash = UInt8(ascii: "/")
        guard path.utf8.last != slash,
            let last = path.utf8.split(separator: slash).last.flatMap({ String($0) })
        else { return nil }
        return (String(path.utf8.dropLast(last.utf8.count)) ?? "", last)
    }

    /// An image in an exported directory, reached inside it and without symbolic links; `nil` for
    /// none.
    func image(
        _ name: String, in export: ExportSelector, canCreate: Bool, _ survey: DeviceSurvey
    ) throws(Problem) -> Found? {
        // Compares bytes, as the kernel does: as characters, a combining mark would hide a slash.
        let slash = UInt8(ascii: "/")
        guard !name.isEmpty, name.utf8.last != slash,
            !name.utf8.split(separator: slash).contains(where: { $0.elementsEqual("..".utf8) }),
            let directory = try Self.directory(export.text)
        else { return nil }
        let full = export.text + name
        let id = Self.nameBasedID(full)
        if let file = try Self.open(
            name, beneath: directory, flags: clb_O_PATH)
        {
            // A device file would give access outside the directory.
            guard (try? file.status().kind) == .regular else { return nil }
            let anchor = Anchor(file)
            guard let description = try Self.description(of: anchor.path, as: full, survey) else {
                return nil
            }
            return Found(
                id: id, name: full, path: anchor.path, access: export.access,
                description: description, anchor: anchor)
        }
        guard canCreate, currentErrno() == .noSuchFileOrDirectory,
            let (parent, last) = Self.split(name),
            let folder = try Self.open(
                parent.isEmpty ? "." : parent, beneath: directory,
                flags: clb_O_PATH | O_DIRECTORY)
        else { return nil }
        try Self.checkNew(name)
        let anchor = Anchor(folder)
        return Found(
            id: id, name: full, path: "\(anchor.path)/\(last)", access: export.access,
            anchor: anchor)
    }

    /// The exported directories that an image is in, whichever export it was found by; each has a
    /// slash at its end.
    func directories(above found: Found) -> [String] {
        guard found.description?.isImage != false, !found.isMissingVolume else { return [] }
        let image = Self.realPath(of: found)
        return exports.filter(\.isDirectory).compactMap { export in
            let directory = (try? canonicalPath(export.text)).map(Self.withSlash) ?? export.text
            return image.utf8.starts(with: directory.utf8) ? directory : nil
        }
    }

    /// The path of an image, or of the place of a new one, without symbolic links.
    static func realPath(of found: Found) -> String {
        if let path = try? canonicalPath(found.path) { return path }
        guard let (parent, last) = split(found.path), let folder = try? canonicalPath(parent) else {
            return found.name
        }
        return withSlash(folder) + last
    }

    private static func withSlash(_ path: String) -> String {
        path.hasSuffix("/") ? path : path + "/"
    }

    /// The status of the file that the path of an export, or of an image in one, leads to now.
    ///
    /// - Throws: ENOENT or ENOTDIR if nothing has that path, ESTALE if a symbolic link that the
    ///   server does not follow is on the path, or the error of the lookup.
    func status(at path: String) throws(Errno) -> FileStatus {
        var failure = Errno.noSuchFileOrDirectory
        for export in exports {
            do throws(Errno) {
                if let status = try Self.status(at: path, in: export) { return status }
            } catch {
                failure = error
            }
        }
        throw failure
    }

    /// `nil` if the path does not belong to the export.
    private static func status(
        at path: String, in export: ExportSelector
    ) throws(Errno) -> FileStatus? {
        guard export.isDirectory else {
            guard export.devicePath.utf8.elementsEqual(path.utf8) else { return nil }
            let place = try existing(path)
            return try place.file.status()
        }
        guard path.utf8.starts(with: export.text.utf8),
            let name = String(path.utf8.dropFirst(export.text.utf8.count))
        else { return nil }
        let place = try existing(export.text)
        guard let image = opened(name, beneath: place.file, flags: clb_O_PATH) else {
            let error = currentErrno()
            throw error == .tooManySymbolicLinkLevels ? Errno.staleNFSFileHandle : error
        }
        return try image.status()
    }

    private static func existing(_ path: String) throws(Errno) -> TrustedPath {
        do throws(TrustedPath.Failure) {
            return try TrustedPath(path)
        } catch {
            guard case .system(let errno) = error else { throw .staleNFSFileHandle }
            throw errno
        }
    }

    func leads(_ path: String, to file: FileIdentity) -> Bool {
        (try? status(at: path)).map { FileIdentity($0) } == file
    }

    private static func directory(_ path: String) throws(Problem) -> OwnedDescriptor? {
        guard let place = try Self.place(path), (try? place.file.status().kind) == .directory
        else { return nil }
        return place.take()
    }

    /// Opens a file in a directory; 503 if its existence cannot be determined.
    private static func open(
        _ name: String, beneath directory: borrowing OwnedDescriptor, flags: Int32
    ) throws(Problem) -> OwnedDescriptor? {
        if let file = opened(name, beneath: directory, flags: flags) { return file }
        try require(absenceOf: name, by: currentErrno())
        return nil
    }

    /// The corresponding C function is `openat2`.
    private static func opened(
        _ name: String, beneath directory: borrowing OwnedDescriptor, flags: Int32
    ) -> OwnedDescriptor? {
        let descriptor = directory.rawValue
        guard let file = try? retryingInterrupts({ clb_open_beneath(descriptor, name, flags) })
        else { return nil }
        return OwnedDescriptor(owning: file)
    }

    func namesOfImages(in path: String) throws(Problem) -> [String] {
        guard let directory = try Self.directory(path) else { return [] }
        let anchor = Anchor(directory)
        let (names, failure) = withExtendedLifetime(anchor) { () -> ([String], Errno?) in
            guard let stream = opendir(anchor.path) else { return ([], currentErrno()) }
            defer { closedir(stream) }
            var names: [String] = []
            while true {
                // Only errno distinguishes the end from a failure.
                errno = 0
                guard let entry = readdir(stream) else { break }
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) {
                        String(validatingCString: $0)
                    }
                }
                guard let name, !name.hasPrefix(".") else { continue }
                names.append(name)
            }
            let failure = currentErrno()
            return (names.sorted(), failure.rawValue == 0 ? nil : failure)
        }
        try Self.require(absenceOf: path, by: failure)
        return names
    }
}
