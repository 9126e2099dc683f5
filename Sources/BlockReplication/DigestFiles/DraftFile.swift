// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// A file under a provisional name, which gets its own name only when it is complete and on the
/// medium.
final class DraftFile: Sendable {
    let path: String
    private let draft: String
    private let directory: OwnedDescriptor
    private let file: OwnedDescriptor

    /// Creates it next to `path`, with zeros.
    ///
    /// - Parameter size: bytes.
    /// - Throws: a refusal if `path` is there and is no digest file, or is the source.
    init(for path: String, size: Int, source: FileStatus?) throws(IOError) {
        self.path = path
        let parent = FilePath(path).removingLastComponent()
        do throws(Errno) {
            let parentPath = parent.isEmpty ? "." : parent.string
            if try SafetyGate.isAmongDevices(canonicalPath(parentPath)) {
                throw Errno.notSupported
            }
            directory = try OwnedDescriptor.open(parentPath, flags: O_RDONLY | O_DIRECTORY)
        } catch .notSupported {
            throw .refusal(.wrongKind, path, "no file is created under /dev")
        } catch {
            throw IOError(path, "create", error)
        }
        if let no = Self.refusal(of: path, source) { throw no }
        draft = "\(path).draft.\(getpid())"
        do throws(Errno) {
            file = try OwnedDescriptor.open(
                draft, flags: O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o644)
        } catch {
            throw IOError(path, "create", error)
        }
        do throws(Errno) {
            _ = try retryingInterrupts { ftruncate(file.rawValue, off_t(size)) }
        } catch {
            unlink(draft)
            throw IOError(path, "extend to \(size) bytes", error)
        }
    }

    deinit { unlink(draft) }

    /// Refuses to replace anything but a digest file.
    private static func refusal(of path: String, _ source: FileStatus?) -> IOError? {
        // A link that leads nowhere would be replaced.
        var answer = stat()
        guard lstat(path, &answer) == 0 else { return nil }
        let status = try? FileStatus(path: path)
        if let status, let source, status.isSameFile(as: source) {
            return .refusal(.overlap, path, "it is the source")
        }
        if status?.kind == .regular, answer.st_mode & S_IFMT == S_IFREG,
            let file = try? OwnedDescriptor.open(path, flags: O_RDONLY),
            let start = try? file.array(VeritySuperblock.magic.count, at: 0),
            start == VeritySuperblock.magic
        {
            return nil
        }
        return .refusal(
            .nameTaken, path, "it exists, and is no file of blkferry digest",
            advice: "Remove it, or name another file.")
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        do throws(Errno) { try file.write(bytes, at: offset) } catch {
            throw IOError(path, "write at \(offset), \(bytes.count) bytes", error)
        }
    }

    func write(_ bytes: [UInt8], at offset: Int) throws(IOError) {
        try bytes.withUnsafeBytes { bytes in
            Result { () throws(IOError) in try write(bytes, at: offset) }
        }.get()
    }

    /// Fills a buffer with bytes that were written, or zeros.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        do throws(Errno) {
            guard try file.read(into: buffer, at: offset) == buffer.count else {
                throw Errno.ioError
            }
        } catch {
            throw IOError(path, "read at \(offset), \(buffer.count) bytes", error)
        }
    }

    /// Gives the file its name once it is on the medium; another one of that name is replaced.
    ///
    /// The corresponding C function is `rename`.
    func publish() throws(IOError) {
        do throws(Errno) {
            try file.synchronize()
            _ = try retryingInterrupts { rename(draft, path) }
            try directory.synchronize()
        } catch {
            throw IOError(path, "write", error)
        }
    }
}

extension OwnedDescriptor {
    /// Reads exactly `count` bytes; `nil` if the file ends before.
    borrowing func array(_ count: Int, at offset: Int) throws(Errno) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        var failure: Errno?
        let length = bytes.withUnsafeMutableBytes { buffer in
            do throws(Errno) { return try read(into: buffer, at: offset) } catch {
                failure = error
                return 0
            }
        }
        if let failure { throw failure }
        return length == count ? bytes : nil
    }
}
