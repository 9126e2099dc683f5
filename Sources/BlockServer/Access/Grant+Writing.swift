// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import SystemPackage
internal import WireProtocol

extension Grant {
    /// Refuses requests of an append-only token that would remove data, with 403.
    func checkAppending(
        _ request: SessionRequest, _ found: ExportTable.Found,
        isSnapshot: () throws(Problem) -> Bool
    ) throws(Problem) {
        guard isAppendOnly else { return }
        if request.keep != nil {
            throw Self.appendOnly(
                found.name, "the token is append-only, and --keep removes older snapshots",
                advice: "Take snapshots without --keep, and remove old ones on the server.")
        }
        if request.shrink == true { throw Self.cutting(found.name) }
        if try isSnapshot() {
            throw Self.appendOnly(
                found.name, "the token is append-only, and a snapshot is part of the history")
        }
    }

    /// Refuses to shrink a target for an append-only token, with 403; sizes are in bytes.
    func checkSize(_ size: Int?, now: Int, _ name: String) throws(Problem) {
        if isAppendOnly, let size, size < now { throw Self.cutting(name) }
    }

    private static func cutting(_ name: String) -> Problem {
        appendOnly(name, "the token is append-only, and the target would be cut")
    }

    private static func appendOnly(
        _ name: String, _ detail: String, advice: String? = nil
    ) -> Problem {
        Problem(
            .access, status: 403, "The token is append-only", detail: detail, object: name,
            advice: advice)
    }

    /// Refuses, with 409, an image that would fill one of its directories beyond the token's
    /// `max-size=`, or that may do so because a directory cannot be read; 503 for a shortage or a
    /// failing disk.
    ///
    /// - Parameters:
    ///   - path: of the image, without symbolic links.
    ///   - directories: all exported ones that the image is in, each with a slash at its end.
    ///   - promised: the sizes of images that other requests are creating or resizing.
    func checkRoom(
        for size: Int, _ name: String, at path: [UInt8], in directories: [String],
        _ promised: RoomPromises.Sizes
    ) throws(Problem) {
        guard let maximumSize else { return }
        for directory in directories {
            // Sizes come from disks and clients: no sum of them may trap.
            let (sum, isTooMuch) = try bytesOfFiles(
                in: directory, except: path, promised, for: name
            ).addingReportingOverflow(room(of: size))
            guard isTooMuch || sum > maximumSize else { continue }
            throw Session.refusal(
                name, .size,
                "the token's directory may have \(maximumSize) bytes; with \(size) of this image "
                    + "it would have \(isTooMuch ? Int.max : sum)")
        }
    }
}

/// Bytes of a block, the smallest room of a file on disk.
private let block = 4096

/// Returns the bytes that a file of this size counts: at least one block, and whole blocks.
private func room(of size: Int) -> Int {
    let (rounded, isTooLarge) = max(1, size).addingReportingOverflow(block - 1)
    return isTooLarge ? .max : rounded / block * block
}

/// Bytes of all regular files but one in a directory and below, each in whole blocks; holes of
/// sparse files count.
///
/// A file counts with the size that it has or with the one that it was promised, whichever is
/// larger.
///
/// - Parameters:
///   - directory: with a slash at its end.
///   - path: of the file that does not count.
///   - image: the client's name of that file, for a message.
/// - Throws: as `names(in:for:)`.
private func bytesOfFiles(
    in directory: String, except path: [UInt8], _ promised: RoomPromises.Sizes, for image: String
) throws(Problem) -> Int {
    var sum = 0
    func add(_ size: Int) {
        let (next, isTooLarge) = sum.addingReportingOverflow(room(of: size))
        sum = isTooLarge ? .max : next
    }
    let exported = Array(directory.utf8)
    // What is left of them at the end has not been created yet.
    var promised = promised.filter { file, _ in file != path && file.starts(with: exported) }
    var directories = [exported]
    while let parent = directories.popLast() {
        for name in try names(in: parent, for: image) {
            let file = parent + name
            let fileName = KernelPath(file).cString
            var status = stat()
            do throws(Errno) {
                _ = try retryingInterrupts { lstat(fileName, &status) }
            } catch {
                try ExportTable.require(absenceOf: image, by: error)
                continue
            }
            switch status.st_mode & S_IFMT {
            case S_IFREG:
                guard file != path else { continue }
                let later = promised.removeValue(forKey: file)?.max() ?? 0
                add(max(Int(clamping: status.st_size), later))
            case S_IFDIR: directories.append(file + [UInt8(ascii: "/")])
            default: break
            }
        }
    }
    for sizes in promised.values { add(sizes.max() ?? 0) }
    return sum
}

/// The names in a directory; none if it has gone, or if the server may not enter it and so opens
/// nothing there.
///
/// - Parameters:
///   - directory: with a slash at its end.
///   - image: the client's name of the image, for a message.
/// - Throws: 409 if it cannot be read: a client could fill it, and it would count as empty; 503 for
///   a shortage or a failing disk.
private func names(in directory: [UInt8], for image: String) throws(Problem) -> [[UInt8]] {
    do throws(Errno) {
        return try bytesOfNamesInDirectory(KernelPath(directory))
    } catch {
        try ExportTable.require(absenceOf: image, by: error)
        let hasGone = error == .noSuchFileOrDirectory || error == .notDirectory
        guard !hasGone && mayEnter(directory) else { return [] }
        throw Problem(
            .refusal(
                .size, image,
                "max-size= limits the token's directory, and the server cannot read a directory "
                    + "there (\(error))",
                advice: "Let the server's user read every directory in the exported one."))
    }
}

/// Whether the server may look up names in a directory, which has a slash at its end.
private func mayEnter(_ directory: [UInt8]) -> Bool {
    do throws(Errno) {
        _ = try FileStatus(path: KernelPath(directory + [UInt8(ascii: ".")]))
        return true
    } catch {
        return error != .permissionDenied
    }
}
