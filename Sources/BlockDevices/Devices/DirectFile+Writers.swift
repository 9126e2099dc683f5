// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import Synchronization

/// Detects writes by other processes, to this file and to the files behind loop devices below it.
extension DirectFile {
    func hasForeignWrites() -> Bool {
        watch.withLock { $0?.hasForeignWrites() ?? false }
            || backingWatch.withLock { $0?.hasForeignWrites() ?? false }
            || checksForOthers.withLock { $0 }.contains { $0() }
    }

    /// Whether another process may have written without a report since the last call, or wrote to a
    /// backing file, where only a comparison shows whether it wrote to these bytes.
    ///
    /// A program that opens the file again or keeps it open without a write, such as a run that
    /// waits for this one, counts only once.
    ///
    /// - Parameter counter: returns a number that changes with every write; `nil` if there is none.
    func hadOtherWriters(_ counter: () -> ChangeCounter?) -> Bool {
        let check = writersCheck.withLock { $0 }
        let isOpened = check?() == true
        // After the check: a writer that closes the file during the check is reported here.
        let isClosed = watch.withLock { $0?.hadOtherWriters() ?? false }
        let (isClosedBelow, isWrittenBelow) = backingWatch.withLock { watch in
            (watch?.hadOtherWriters() ?? false, watch?.wasWritten() ?? false)
        }
        guard isOpened || isClosed || isClosedBelow || isWrittenBelow else { return false }
        let now = counter()
        return counterOfWriters.withLock { known in
            defer { known = now }
            return isWrittenBelow || now == nil || now != known
        }
    }

    func checkForWriters(_ check: @escaping @Sendable () -> Bool) {
        writersCheck.withLock { $0 = check }
    }

    /// Whether the kernel reports writes by other processes.
    var isWatched: Bool { watch.withLock { $0 != nil } }

    func checkForOthers(_ check: @escaping @Sendable () -> Bool) {
        checksForOthers.withLock { $0.append(check) }
    }

    /// Sets the backing files of all loop devices below, whose names are checked at the end.
    ///
    /// If this file is locked for writing, it also counts other processes that write to them or had
    /// them open for writing.
    func setBackings(_ files: [BackingFile]) {
        backings.withLock { $0 = files }
        guard isWatched, !files.isEmpty else { return }
        // Whoever had the file below the file system of an image open need not have changed the
        // image, so only a comparison counts.
        let isDevice = (try? main.status())?.kind == .blockDevice
        let below = BackingWatch(files, areClosesForeign: isDevice)
        backingWatch.withLock { $0 = below }
        // Without it, it is unknown whether other programs write.
        if below == nil { watch.withLock { $0 = nil } }
    }
}
