// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import SystemPackage

/// Capabilities of a thread, a bit for each number of capabilities(7).
package struct Capabilities: OptionSet, Sendable {
    package let rawValue: UInt64

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    package static let overrideAccess = Capabilities(rawValue: 1 << 1)
    package static let readSearch = Capabilities(rawValue: 1 << 2)
    package static let traceProcesses = Capabilities(rawValue: 1 << 19)
    package static let administrate = Capabilities(rawValue: 1 << 21)
    package static let lease = Capabilities(rawValue: 1 << 28)

    private static let names: [(Capabilities, String)] = [
        (.overrideAccess, "CAP_DAC_OVERRIDE"), (.readSearch, "CAP_DAC_READ_SEARCH"),
        (.traceProcesses, "CAP_SYS_PTRACE"), (.administrate, "CAP_SYS_ADMIN"),
        (.lease, "CAP_LEASE"),
    ]

    /// The names of the capabilities above, separated by commas; `none` without any.
    package var text: String {
        let names = Self.names.filter { contains($0.0) }.map(\.1)
        return names.isEmpty ? "none" : names.joined(separator: ",")
    }
}

extension Capabilities {
    /// The permitted capabilities of this thread.
    package static var permitted: Capabilities { Capabilities(rawValue: clb_get_capabilities()) }

    /// Makes all capabilities of this thread ineffective until it calls `keep`.
    package static func suspend() throws(Errno) {
        let permitted = permitted.rawValue
        _ = try retryingInterrupts { clb_set_capabilities(permitted, 0) }
    }

    /// Drops all other capabilities of this thread and of the threads that it will start, for good.
    ///
    /// - Parameter limitingPrograms: whether programs that they start get no other capabilities
    ///   either, even as root.
    /// - Throws: the error of capset(2).
    package func keep(limitingPrograms: Bool) throws(Errno) {
        let kept = intersection(.permitted).rawValue
        if limitingPrograms {
            // PR_CAPBSET_DROP of prctl(2) needs CAP_SETPCAP. Without it the programs' limit stays.
            let permitted = Self.permitted.rawValue
            _ = try retryingInterrupts { clb_set_capabilities(permitted, permitted) }
            _ = clb_limit_capabilities(kept)
        }
        _ = try retryingInterrupts { clb_set_capabilities(kept, kept) }
    }

    /// Throws unless this thread may use a path now, with its effective capabilities.
    ///
    /// - Parameters:
    ///   - path: symbolic links are followed.
    ///   - mode: the mode of access(2), such as `R_OK`.
    /// - Throws: the error of faccessat2(2); for root ENOSYS before Linux 5.8.
    package static func checkAccess(_ path: String, _ mode: Int32) throws(Errno) {
        do throws(Errno) {
            _ = try retryingInterrupts { clb_may_access(path, mode) }
        } catch .noFunction where geteuid() != 0 {
            // access(2) checks the real user, which is the same here. Only for root it would also
            // count suspended capabilities.
            _ = try retryingInterrupts { access(path, mode) }
        }
    }

    /// Whether fanotify(7) works without CAP_SYS_ADMIN, which it needs before Linux 5.13, or this
    /// thread has that capability.
    package static var mayWatch: Bool {
        let watch = clb_create_watch()
        guard watch >= 0 else { return currentErrno() != .notPermitted }
        close(watch)
        return true
    }
}
