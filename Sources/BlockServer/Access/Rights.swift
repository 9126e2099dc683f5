// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import Synchronization
internal import WireProtocol

/// A right that a client got, and its reason; checked again after each change of tokens or exports.
final class Permission: Sendable {
    let grant: Grant
    let peer: Peer
    let found: ExportTable.Found
    /// The request that opened the session; `nil` for a download.
    let request: SessionRequest?
    let cuts: Bool
    /// Generation of the rights at the last check; -1 before the first one.
    private let judged: Atomic<Int>

    init(
        _ grant: Grant, _ peer: Peer, _ found: ExportTable.Found, request: SessionRequest? = nil,
        cuts: Bool = false, judged: Int = -1
    ) {
        self.grant = grant
        self.peer = peer
        self.found = found
        self.request = request
        self.cuts = cuts
        self.judged = Atomic(judged)
    }

    fileprivate func isJudged(by generation: Int) -> Bool {
        judged.load(ordering: .relaxed) == generation
    }

    fileprivate func noteJudged(by generation: Int) {
        judged.store(generation, ordering: .relaxed)
    }
}

final class Rights: Sendable {
    let access: AccessTable
    let exports: ExportTable

    init(_ access: AccessTable, _ exports: ExportTable) {
        self.access = access
        self.exports = exports
    }

    var generation: Int { access.generation &+ exports.generation }

    /// Whether a permission still holds, by token or certificate, time, address and exports.
    ///
    /// Blocks after a change, since it may have to look up a path.
    func allow(_ permission: Permission, now: Int = time(nil)) -> Bool {
        // Read first: a change during this check is checked the next time.
        let generation = generation
        let grant = access.grant(of: permission.peer, before: permission.grant, now: now)
        guard let grant else { return false }
        if permission.isJudged(by: generation) { return true }
        guard let found = exports.limit(permission.found).flatMap(grant.limit) else {
            return false
        }
        if let request = permission.request, request.mode != .read {
            guard found.access == .readWrite, !(grant.isAppendOnly && permission.cuts) else {
                return false
            }
            do throws(Problem) {
                try grant.checkAppending(request, found) { () throws(Problem) in
                    try exports.isSnapshot(found)
                }
            } catch {
                return false
            }
        }
        permission.noteJudged(by: generation)
        return true
    }

    /// Whether a permission still holds, decided without blocking; `nil` if its device has to be
    /// looked up.
    func allowAtOnce(_ permission: Permission, now: Int = time(nil)) -> Bool? {
        // Read first, as in `allow`.
        let generation = generation
        guard access.grant(of: permission.peer, before: permission.grant, now: now) != nil else {
            return false
        }
        return permission.isJudged(by: generation) ? true : nil
    }

    /// The present generation for a new permission; -1 if the grant has changed since.
    func generation(of grant: Grant, _ peer: Peer) -> Int {
        let generation = generation
        let now = time(nil)
        return access.grant(of: peer, before: grant, now: now) == grant ? generation : -1
    }
}

extension ExportSelector {
    func covers(_ found: ExportTable.Found) -> Bool {
        switch selector {
        case .tag:
            return found.description?.hasTag(text) == true
        case .path where isDirectory || group != nil:
            // Compares bytes, as the kernel does. No export's name contains `..`.
            return found.name.utf8.starts(with: text.utf8)
        case .path:
            let path = devicePath
            if found.name.utf8.elementsEqual(path.utf8) { return true }
            // The same block device under another name.
            guard let number = TrustedPath.deviceNumber(at: path) else { return false }
            return found.identity == .device(number)
        }
    }
}

extension ExportTable {
    /// Limits a device, found by earlier exports, to what the present exports allow.
    ///
    /// Its earlier description counts, since a writing session changes the device's tags.
    func limit(_ found: Found) -> Found? {
        var accesses = exports.filter { $0.covers(found) }.map(\.access)
        if offersAll, found.description?.isImage == false { accesses.append(.readOnly) }
        guard !accesses.isEmpty else { return nil }
        var found = found
        found.access = accesses.contains(.readWrite) ? .readWrite : .readOnly
        return found
    }
}
