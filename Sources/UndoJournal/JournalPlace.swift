// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import LinuxIO
internal import SystemPackage

/// The file of a journal.
///
/// A journal that replaces another one has a draft beside it, which takes its name when it is on
/// the medium, and before the run's first write.
package struct JournalPlace: Sendable {
    /// As the user names it.
    package let path: String
    /// What leads to it in this process, such as through an open directory.
    private let opened: String
    /// What the journal is called until it takes the place of another one; `nil` if it takes none.
    ///
    /// The name is random, so a draft of a killed run does not block a later run.
    private let draft: String?
    /// The journal that is replaced, which no rollback can use meanwhile.
    private let replaced: JournalReader?

    /// - Parameter opened: what leads to it in this process; by default the path.
    package init(path: String, opened: String? = nil) {
        self.path = path
        self.opened = opened ?? path
        draft = nil
        replaced = nil
    }

    /// The place of a journal whose way back is not needed any more.
    init(replacing journal: JournalReader) {
        path = journal.path
        opened = path
        draft = "\(path).new-\(String(UInt64.random(in: .min ... .max), radix: 16))"
        replaced = journal
    }

    private var created: String { draft ?? opened }

    /// The refusal of a journal that exists.
    package static func exists(_ path: String) -> IOError {
        .refusal(
            .nameTaken, path, "it exists, and may be the only way back from an earlier run",
            advice: "Roll that run back (blkferry rollback), remove the file, name another, or say "
                + "--undo-replace.")
    }

    func create() throws(IOError) -> OwnedDescriptor {
        do throws(Errno) {
            return try OwnedDescriptor.open(
                created, flags: O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
        } catch .fileExists {
            throw Self.exists(draft ?? path)
        } catch {
            throw IOError(path, "create", error)
        }
    }

    /// Gives the journal its name, on the medium.
    func settle() throws(IOError) {
        do throws(Errno) {
            let (created, opened) = (created, opened)
            if draft != nil { _ = try retryingInterrupts { rename(created, opened) } }
            try synchronizeDirectory(ofFile: opened)
        } catch {
            throw IOError(path, "create", error)
        }
    }

    func remove() { unlink(created) }
}
