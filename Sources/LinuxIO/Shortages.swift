// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import Synchronization
package import SystemPackage

/// Memory that `ulimit -v` or strict overcommitment may refuse.
package enum Memory {
    package static let advice = "ulimit -v shows a limit; --concurrency 1 needs the least memory."

    package static func has(_ bytes: Int) -> Bool {
        let memory = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let memory, memory != MAP_FAILED else { return false }
        munmap(memory, bytes)
        return true
    }

    /// Whether this process can run out of addresses while the machine has memory.
    package static var isLimited: Bool {
        var limit = rlimit()
        return getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0
            && limit.rlim_cur < rlim_t(Int.max)
    }

    /// An error of this process, not of the device.
    package static func error(_ object: String, _ operation: String, _ bytes: Int) -> IOError {
        var error = IOError(object, operation, .noMemory, advice: advice)
        error.reason = "not enough memory: \(bytes) bytes needed"
        return error
    }

    /// Ends the program, for callers that cannot report a shortage of memory.
    static func end(needing bytes: Int) -> Never {
        let line = "blkferry: memory: allocate: not enough memory: \(bytes) bytes needed\n"
        _ = write(STDERR_FILENO, "\(line)  \(advice)\n", line.utf8.count + advice.utf8.count + 3)
        // The same status as for other errors of the system (docs/exit-statuses.md).
        _exit(3)
    }
}

package enum Descriptors {
    package static let advice = "ulimit -n raises the limit; --concurrency 1 needs the fewest."

    package static var shortage: Errno? { shortage(of: 1) }

    package static func hasRoom(for count: Int) -> Bool { shortage(of: count) == nil }

    /// The reason if `count` more descriptors cannot be opened.
    package static func shortage(of count: Int) -> Errno? {
        var opened: [Int32] = []
        defer { for descriptor in opened { close(descriptor) } }
        for _ in 0..<count {
            let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
            let descriptor = socket(AF_UNIX, kind, 0)
            guard descriptor < 0 else {
                opened.append(descriptor)
                continue
            }
            let reason = currentErrno()
            return [.tooManyOpenFiles, .tooManyOpenFilesInSystem].contains(reason) ? reason : nil
        }
        return nil
    }
}

/// Counts system calls that failed for lack of descriptors or memory in this process or machine.
///
/// Such a failure says nothing about the file, but many functions treat every failure as "not
/// found". A caller that must tell the two apart compares `count` before and after.
package enum Shortages {
    private static let counted = Atomic(0)
    private static let last = Atomic<Int32>(0)

    /// The number of shortages since the process started.
    package static var count: Int { counted.load(ordering: .relaxed) }

    /// The last shortage since `count` was read, also of another thread, which has the same limits.
    package static func since(_ count: Int) -> Errno? {
        count == self.count ? nil : Errno(rawValue: last.load(ordering: .relaxed))
    }

    package static func includes(_ errno: Errno) -> Bool {
        [.tooManyOpenFiles, .tooManyOpenFilesInSystem, .noMemory].contains(errno)
    }

    package static func note(_ errno: Errno) {
        guard includes(errno) else { return }
        last.store(errno.rawValue, ordering: .relaxed)
        counted.add(1, ordering: .relaxed)
    }
}
