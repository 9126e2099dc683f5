// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import LinuxIO
internal import SystemPackage

/// Where a delta is written: a draft of the file, which gets its name when it is complete, or a pipe.
///
/// It is safe to send, because one thread at a time uses it.
package final class DeltaSink: @unchecked Sendable {
    private let name: String
    private let descriptor: Int32
    private let file: OwnedDescriptor?
    private let draft: String?
    private let digest: RunningDigest
    /// Bytes written so far.
    private(set) var position = 0
    private var pending: [UInt8] = []
    private var isNamed = false

    /// Bytes of small pieces that are written together.
    private static let longestPending = 256 << 10

    /// Creates the draft `PATH.PID`.
    ///
    /// - Throws: a refusal if the file exists.
    package init(creating path: String) throws(IOError) {
        guard !FileStatus.exists(path) else { throw Self.exists(path) }
        let draft = "\(path).\(getpid())"
        do throws(Errno) {
            let file = try OwnedDescriptor.open(
                draft, flags: O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW)
            descriptor = file.rawValue
            self.file = consume file
        } catch {
            throw IOError(path, "create", error)
        }
        name = path
        self.draft = draft
        do throws(IOError) { digest = try RunningDigest() } catch {
            unlink(draft)
            throw error
        }
    }

    /// - Parameter descriptor: of a pipe, which the caller closes.
    package init(_ descriptor: Int32, name: String) throws(IOError) {
        self.name = name
        self.descriptor = descriptor
        file = nil
        draft = nil
        digest = try RunningDigest()
    }

    deinit {
        if let draft, !isNamed { unlink(draft) }
    }

    private static func exists(_ path: String) -> IOError {
        .refusal(
            .nameTaken, path, "it exists", advice: "Remove it, or name another file for the delta.")
    }

    func write(_ bytes: [UInt8]) throws(IOError) {
        pending += bytes
        if pending.count >= Self.longestPending { try writePending() }
    }

    func write(_ bytes: UnsafeRawBufferPointer) throws(IOError) {
        if bytes.count < 64 << 10 {
            pending.append(contentsOf: bytes)
            if pending.count >= Self.longestPending { try writePending() }
        } else {
            try writePending()
            try writeNow(bytes)
        }
    }

    /// The length so far, with what is still in memory.
    var length: Int { position + pending.count }

    /// Appends SHA-256 of everything before, and makes a file durable under its name.
    func finish() throws(IOError) {
        try writePending()
        try digest.finish().withUnsafeBytes { bytes in
            Result { () throws(IOError) in try put(bytes) }
        }.get()
        guard let draft else { return }
        do throws(Errno) {
            try file?.synchronize()
            // rename(2) would replace a file that another program has created meanwhile.
            guard !FileStatus.exists(name) else { throw Errno.fileExists }
            _ = try retryingInterrupts { rename(draft, name) }
            isNamed = true
            let parent = FilePath(name).removingLastComponent()
            try OwnedDescriptor.open(
                parent.isEmpty ? "." : parent.string, flags: O_RDONLY | O_DIRECTORY
            ).synchronize()
        } catch .fileExists {
            throw Self.exists(name)
        } catch {
            throw IOError(name, "write", error)
        }
    }

    private func writePending() throws(IOError) {
        guard !pending.isEmpty else { return }
        let bytes = pending
        pending.removeAll(keepingCapacity: true)
        try bytes.withUnsafeBytes { bytes in
            Result { () throws(IOError) in try writeNow(bytes) }
        }.get()
    }

    private func writeNow(_ bytes: UnsafeRawBufferPointer) throws(IOError) {
        try digest.add(bytes)
        try put(bytes)
    }

    private func put(_ bytes: UnsafeRawBufferPointer) throws(IOError) {
        var done = 0
        while done < bytes.count {
            let rest = slice(bytes, done, bytes.count)
            do throws(Errno) {
                done += try retryingInterrupts {
                    Glibc.write(descriptor, rest.baseAddress, rest.count)
                }
            } catch .resourceTemporarilyUnavailable {
                // Another program has made the pipe one that does not wait.
                var polled = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                poll(&polled, 1, -1)
            } catch {
                throw IOError(name, "write", error)
            }
        }
        position += bytes.count
    }
}
