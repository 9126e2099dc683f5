// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import Synchronization
internal import WireProtocol

/// The history of writing sessions, in a file that outlives the server.
///
/// All servers of one user share the file, so that each knows the sessions of the others. A restart
/// of the machine empties its directory. The file also holds the boot's identifier, because change
/// counters prove nothing across a restart. If the file cannot be opened, the history covers only
/// this server. A file that cannot be read is not an empty one: while it is damaged it proves
/// nothing, and after its replacement all runs that began before count as changed.
final class WriteHistoryStore: Sendable {
    private struct Content: Codable {
        var boot: String
        var history: WriteHistory
    }

    private let path: String?
    private let boot: String?
    /// History of this server; also guards the file against other threads of this process.
    private let memory = Mutex(WriteHistory())
    /// Bytes: twice the size of a full history.
    private static let limit = 2 << 20

    init(directory: String?, boot: String?) {
        path = directory.map { "\($0)/writes.json" }
        self.boot = boot
        if let directory { _ = mkdir(directory, 0o700) }
    }

    func add(_ entry: WriteHistory.Entry, of key: DeviceKey) {
        memory.withLock { memory in
            memory.add(entry, of: key)
            guard let boot, let file = open() else { return }
            var content = Content(boot: boot, history: read(file) ?? .afterLoss)
            content.history.add(entry, of: key)
            var bytes = WireJSON.encode(content)
            if bytes.count > Self.limit {
                content.history = .afterLoss
                content.history.add(entry, of: key)
                bytes = WireJSON.encode(content)
            }
            let count = bytes.withUnsafeBytes { (try? file.writeOnce($0, at: 0)) ?? 0 }
            // If the entry did not fit, at least one byte stays: a file that is cut is not valid
            // JSON, and counts as damaged. An empty one would be that of a new boot.
            _ = ftruncate(file.rawValue, max(1, count))
        }
    }

    func answer(to run: String?, of client: String?, for key: DeviceKey) -> WriteHistory.Answer {
        memory.withLock { memory in
            guard let file = open() else { return memory.answer(to: run, of: client, for: key) }
            if let history = read(file) { return history.answer(to: run, of: client, for: key) }
            // Other servers may have written as well, so this server's own sessions prove nothing.
            let answer = memory.answer(to: run, of: client, for: key)
            guard case .since = answer else { return answer }
            return .since(counter: nil)
        }
    }

    /// Opens the file and waits for its lock, which other servers hold for a moment.
    private func open() -> OwnedDescriptor? {
        guard boot != nil, let path,
            let file = try? OwnedDescriptor.open(
                path, flags: O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, mode: 0o600)
        else { return nil }
        var status = stat()
        guard fstat(file.rawValue, &status) == 0, status.st_uid == geteuid(),
            status.st_mode & S_IFMT == S_IFREG, flock(file.rawValue, LOCK_EX) == 0
        else { return nil }
        return file
    }

    /// The history of this boot; `nil` if it is damaged or too large.
    private func read(_ file: borrowing OwnedDescriptor) -> WriteHistory? {
        guard let size = try? file.status().size, size <= Self.limit else { return nil }
        // The file is new.
        guard size > 0 else { return WriteHistory() }
        var bytes = [UInt8](repeating: 0, count: size)
        let count = bytes.withUnsafeMutableBytes { (try? file.readOnce(into: $0, at: 0)) ?? 0 }
        guard count == size,
            let content = bytes.withUnsafeBytes({
                try? WireJSON.decode(Content.self, from: $0)
            })
        else { return nil }
        // No session outlives a restart of the machine.
        return content.boot == boot ? content.history : WriteHistory()
    }
}
