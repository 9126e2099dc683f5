// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import Digests
internal import Glibc
internal import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// The file of a checkpoint: a line with its version, a line of JSON, and the SHA-256 of both.
///
/// It is replaced as a whole. A file that does not begin like a checkpoint is never written to.
struct CheckpointFile: Sendable {
    enum Content: Hashable, Sendable {
        case missing
        /// A file that is no checkpoint, or that other users may have written; the reason.
        case foreign(String)
        case damaged(String)
        case otherVersion
        /// A run has begun to write, and has not ended in order.
        case running(process: String)
        case record(CheckpointRecord)
    }

    /// What is sealed; one of the two is set.
    private struct Body: Codable {
        /// See `processIdentity`.
        var running: String?
        var record: CheckpointRecord?
    }

    /// As the user named it.
    let name: String
    /// With symbolic links resolved.
    private let path: String

    private static let magic = "blkferry checkpoint "
    private static let version = "1"
    /// Bytes; `DoneRanges.limit` ranges take less.
    private static let mostBytes = 8 << 20

    init(_ name: String) {
        self.name = name
        path = (try? canonicalPath(name)) ?? name
    }

    /// Refuses a file that is no checkpoint, or that is on a device of the run, before anything is
    /// opened.
    func check(_ operands: Operands, isAutomatic: Bool = false) throws(ReplicationError) {
        do throws(IOError) {
            for (location, isTarget) in [(operands.source, false), (operands.target, true)] {
                guard case .local(let selector) = location else { continue }
                try SafetyGate.checkCheckpoint(name, of: selector, isTarget: isTarget)
            }
            if case .foreign(let reason) = try read() {
                throw refusal(reason, isAutomatic: isAutomatic)
            }
        } catch {
            // The user has not named the file, so the run goes on without one.
            guard isAutomatic, error.cause == nil else { throw ReplicationError(error) }
        }
    }

    /// - Parameter isAutomatic: whether the user has not named the file.
    func refusal(_ reason: String, isAutomatic: Bool = false) -> IOError {
        .refusal(
            .wrongKind, name, reason,
            advice: isAutomatic
                ? "Remove it; the next run compares everything."
                : "Name a file that does not exist, or the checkpoint of an earlier run.")
    }

    func read() throws(IOError) -> Content {
        do throws(Errno) {
            // No wait for the writer of a FIFO, and no link that has come meanwhile.
            let file = try OwnedDescriptor.open(path, flags: O_RDONLY | O_NONBLOCK | O_NOFOLLOW)
            var status = stat()
            _ = try retryingInterrupts { fstat(file.rawValue, &status) }
            guard status.st_mode & S_IFMT == S_IFREG, status.st_size <= Self.mostBytes else {
                return Self.noCheckpoint
            }
            // The seal detects damage, not a file that another user has sealed.
            guard status.st_uid == geteuid(), status.st_mode & 0o022 == 0 else {
                return .foreign("it belongs to another user, or other users may write to it")
            }
            return Self.content(of: try smallFileBytes("/proc/self/fd/\(file.rawValue)"))
        } catch .noSuchFileOrDirectory {
            return .missing
        } catch .notDirectory {
            return .missing
        } catch .tooManySymbolicLinkLevels {
            return Self.noCheckpoint
        } catch {
            throw IOError(name, "read", error)
        }
    }

    /// Marks the checkpoint as in use by this process, so that it claims nothing; it is on the medium
    /// when this returns.
    func begin() throws(IOError) {
        try write(Body(running: processIdentity(of: getpid())))
    }

    func write(_ record: CheckpointRecord) throws(IOError) { try write(Body(record: record)) }

    /// Removes the file; it is gone from the medium when this returns.
    func remove() throws(IOError) {
        do throws(Errno) {
            do throws(Errno) { _ = try retryingInterrupts { unlink(path) } } catch {
                guard error == .noSuchFileOrDirectory else { throw error }
                return
            }
            try synchronizeDirectory(ofFile: path)
        } catch {
            throw IOError(name, "remove", error)
        }
    }

    private func write(_ body: Body) throws(IOError) {
        let bytes = try Self.sealed(WireJSON.encode(body))
        do throws(Errno) {
            try replaceFile(path, with: bytes, mode: 0o600)
            try synchronizeDirectory(ofFile: path)
        } catch {
            throw IOError(name, "write", error)
        }
    }

    // MARK: Bytes

    static let noCheckpoint = Content.foreign("it is no checkpoint, and would be overwritten")

    static func bytes(of record: CheckpointRecord) throws(IOError) -> [UInt8] {
        try sealed(WireJSON.encode(Body(record: record)))
    }

    static func sealed(_ json: [UInt8]) throws(IOError) -> [UInt8] {
        let text = Array("\(magic)\(version)\n".utf8) + json + [UInt8(ascii: "\n")]
        return text + Array(hexadecimal(try sha256(of: text)).utf8)
    }

    /// - Parameter bytes: of any file.
    static func content(of bytes: [UInt8]) -> Content {
        guard bytes.starts(with: magic.utf8) else { return noCheckpoint }
        let newline = UInt8(ascii: "\n")
        let first = bytes.dropFirst(magic.utf8.count).prefix { $0 != newline }
        guard first.elementsEqual(version.utf8) else { return .otherVersion }
        guard let last = bytes.lastIndex(of: newline), last > first.endIndex else {
            return .damaged("it is cut off")
        }
        let text = Array(bytes[...last])
        guard let seal = try? sha256(of: text),
            bytes[(last + 1)...].elementsEqual(hexadecimal(seal).utf8)
        else { return .damaged("its SHA-256 is another one") }
        let json = text[(first.endIndex + 1)..<last]
        let body = json.withUnsafeBytes { json in
            Result { () throws(WireError) in try WireJSON.decode(Body.self, from: json) }
        }
        switch body {
        case .success(let body):
            if let process = body.running { return .running(process: process) }
            guard let record = body.record, record.doneRanges != nil else {
                return .damaged("its list of ranges is invalid")
            }
            return .record(record)
        case .failure(let error): return .damaged(error.reason)
        }
    }
}
