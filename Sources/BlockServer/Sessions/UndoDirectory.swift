// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import Glibc
package import LinuxIO
internal import SystemPackage
internal import UndoJournal
internal import WireProtocol

/// The directory for the undo journals of writing sessions.
package final class UndoDirectory: Sendable {
    package let path: String
    /// Bytes of each journal at most; `nil` for no limit.
    private let limit: Int?
    /// Stays open, because a server that has dropped root's rights may not reach the path.
    private let directory: OwnedDescriptor

    /// - Throws: if it cannot be opened.
    package init(_ path: String, limit: Int?) throws(LinuxIO.IOError) {
        self.path = path
        self.limit = limit
        do throws(Errno) {
            directory = try OwnedDescriptor.open(path, flags: O_RDONLY | O_DIRECTORY)
        } catch {
            throw LinuxIO.IOError(path, "open", error)
        }
    }

    /// What leads to the directory in this process.
    private var opened: String { "/proc/self/fd/\(directory.rawValue)" }

    /// Throws if the server's user cannot create files in it.
    package func check() throws(LinuxIO.IOError) {
        guard access(opened, R_OK | W_OK | X_OK) != 0 else { return }
        throw LinuxIO.IOError(
            path, "create", currentErrno(),
            advice: "The server's user must be able to create files in the directory.")
    }

    var latest: LatestJournals { LatestJournals(besides: opened) }

    /// A new journal for a session on a target.
    ///
    /// - Throws: a refusal if the directory is on the target.
    func order(
        for found: ExportTable.Found, _ view: SystemView
    ) throws(LinuxIO.IOError) -> JournalOrder {
        let start = "\(Self.safe(found.id))-\(Self.now())"
        var (name, number) = ("\(start).undo", 1)
        while FileStatus.exists("\(opened)/\(name)") {
            number += 1
            name = "\(start)-\(number).undo"
        }
        do throws(LinuxIO.IOError) {
            try SafetyGate.checkJournal(
                "\(opened)/\(name)", of: .path(found.path), view: view)
        } catch {
            var error = error
            error.object = "\(path)/\(name)"
            throw error
        }
        var order = JournalOrder(path: "\(path)/\(name)")
        order.opened = "\(opened)/\(name)"
        order.limit = limit
        return order
    }

    /// A part of a file's name: other bytes than letters, digits and some signs are replaced.
    static func safe(_ identifier: String) -> String {
        let bytes = identifier.utf8.prefix(longestName).map { byte in
            let isPlain =
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"):
                    true
                default: "-_=".utf8.contains(byte)
                }
            return isPlain ? byte : UInt8(ascii: "_")
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Bytes; with the time it is shorter than any file system's limit.
    private static let longestName = 120

    /// The time in UTC, as `20261130T120000Z`.
    private static func now() -> String {
        var (now, date) = (time(nil), tm())
        gmtime_r(&now, &date)
        var text = [CChar](repeating: 0, count: 32)
        strftime(&text, text.count, "%Y%m%dT%H%M%SZ", &date)
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8($0) }, as: UTF8.self)
    }
}

extension UndoRecord {
    /// The name in the directory alone: the server shows no paths.
    init(_ report: JournalReport) {
        self.init(
            journal: FilePath(report.journal).lastComponent?.string ?? "", bytes: report.bytes,
            usable: report.usable)
    }
}
