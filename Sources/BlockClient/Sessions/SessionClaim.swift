// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
internal import Glibc
internal import LinuxIO
internal import WireProtocol

/// A file with the id of a client's session that has its device alone: one for writing, or a dry run.
///
/// It lets the next client on this machine end the session of a killed client.
///
/// A client holds the file's lock as long as it lives. The kernel releases the lock when the
/// process ends for any reason, but not while the process is stopped. A client that gets the lock
/// therefore knows that the session is unused. Other machines and other users cannot access the
/// file, and the server accepts the session only with the token that opened it.
///
/// The file is removed with the session, and that of a killed client by another client when it is
/// old, always by the holder of its lock. A client that has locked a file therefore checks that the
/// name still leads to it.
package final class SessionClaim: Sendable {
    private let file: OwnedDescriptor
    private let path: String

    private static let suffix = ".session"
    /// Seconds after its last use that a file is kept: 25 hours.
    ///
    /// A session whose client was killed may live for a day, the longest timeout of a server.
    private static let keptTime = 90_000

    /// Opens a session, and claims it unless it is for reading.
    ///
    /// If the server refuses because a killed client of this machine and user still holds the
    /// device, this ends that client's session first.
    ///
    /// - Returns: the session. There is no claim for a reading session, or if no file can be kept.
    static func open(
        _ server: RemoteServer, _ selector: String, _ request: SessionRequest
    ) throws(IOError) -> (SessionRecord, SessionClaim?) {
        var claim: SessionClaim?
        let record: SessionRecord
        do throws(IOError) {
            record = try RemoteBlockDevice.open(server, selector, request)
        } catch {
            guard error.cause == .locked else { throw error }
            claim = SessionClaim(of: selector, on: server)
            guard let session = claim?.session else { throw error }
            server.note("a client of this machine was killed: ending its session")
            let body = ResponseBody(limit: Limits.json)
            let end = HTTPRequest(
                .delete, Route.session(session).path, silence: RemoteBlockDevice.flushSilence)
            guard (try? server.send(end, "release", .nothing, into: body)) != nil else {
                throw error
            }
            record = try RemoteBlockDevice.open(server, selector, request)
        }
        guard request.mode != .read else { return (record, nil) }
        claim = claim ?? SessionClaim(of: selector, on: server)
        claim?.hold(record.session)
        return (record, claim)
    }

    /// Locks the file of a device; `nil` if another client holds the lock or no file can be kept.
    private init?(of selector: String, on server: RemoteServer) {
        // A server that ssh started ends with its client.
        guard let directory = server.options.claims, server.location.scheme != .ssh,
            let digest = try? sha256(of: Array("\(server.location.server)\n\(selector)".utf8))
        else { return nil }
        _ = mkdir(directory, 0o700)
        path = "\(directory)/\(hexadecimal(digest.prefix(16)))\(Self.suffix)"
        guard let locked = Self.lockedFile(at: path, flags: O_CREAT) else { return nil }
        file = locked
        Self.removeOld(in: directory)
    }

    /// Opens and locks a file; `nil` if another client holds the lock, or it is not this user's.
    private static func lockedFile(at path: String, flags: Int32 = 0) -> OwnedDescriptor? {
        // Another client may remove an old file between these calls.
        for _ in 0..<3 {
            guard
                let file = try? OwnedDescriptor.open(path, flags: O_RDWR | O_NOFOLLOW | flags)
            else { return nil }
            var status = stat()
            guard fstat(file.rawValue, &status) == 0, status.st_uid == geteuid(),
                status.st_mode & S_IFMT == S_IFREG, flock(file.rawValue, LOCK_EX | LOCK_NB) == 0
            else { return nil }
            if leads(path, to: file) { return file }
        }
        return nil
    }

    private static func leads(_ path: String, to file: borrowing OwnedDescriptor) -> Bool {
        var (own, named) = (stat(), stat())
        return fstat(file.rawValue, &own) == 0 && lstat(path, &named) == 0
            && (own.st_dev, own.st_ino) == (named.st_dev, named.st_ino)
    }

    /// Removes the files of clients that ended long ago.
    private static func removeOld(in directory: String) {
        let oldest = time(nil) - keptTime
        for name in namesInDirectory(directory) where name.hasSuffix(suffix) {
            let path = "\(directory)/\(name)"
            var status = stat()
            guard lstat(path, &status) == 0, status.st_mtim.tv_sec < oldest,
                let file = lockedFile(at: path)
            else { continue }
            // Another client may have used the file since.
            if fstat(file.rawValue, &status) == 0, status.st_mtim.tv_sec < oldest { unlink(path) }
            // Until here the lock keeps other clients from the file.
            _ = consume file
        }
    }

    /// The session that the last holder left; `nil` for none.
    private var session: String? {
        var bytes = [UInt8](repeating: 0, count: 128)
        let count = bytes.withUnsafeMutableBytes { (try? file.readOnce(into: $0, at: 0)) ?? 0 }
        let text = bytes[..<count].filter {
            (0x30...0x39).contains($0) || (0x61...0x66).contains($0)
        }
        return text.isEmpty ? nil : String(decoding: text, as: UTF8.self)
    }

    func hold(_ session: String) {
        _ = ftruncate(file.rawValue, 0)
        _ = Array(session.utf8).withUnsafeBytes { try? file.writeOnce($0, at: 0) }
    }

    /// Notes that the session is in use, so that the file is not old when the client is killed.
    func touch() { _ = futimens(file.rawValue, nil) }

    func release() {
        _ = ftruncate(file.rawValue, 0)
        if Self.leads(path, to: file) { unlink(path) }
    }
}
