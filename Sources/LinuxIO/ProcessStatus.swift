// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// What /proc/PID/stat shows of a process (proc_pid_stat(5)).
package struct ProcessStatus {
    /// Field 3 and those behind it; none if the file cannot be read.
    private let fields: [Substring]

    /// - Parameter process: its number, or `self`.
    package init(_ process: String, in proc: String = "/proc") {
        let text = readSmallFile("\(proc)/\(process)/stat") ?? ""
        // The process's name may contain any character. It ends with the last parenthesis.
        fields = text.split(separator: ")").last?.split(separator: " ") ?? []
    }

    package var parent: Int32? { field(4).flatMap { Int32($0) } }

    /// Bits such as `PF_EXITING` of linux/sched.h.
    package var flags: UInt32? { field(9).flatMap { UInt32($0) } }

    /// Ticks since the boot.
    package var start: Substring? { field(22) }

    private func field(_ number: Int) -> Substring? { fields.dropFirst(number - 3).first }
}

/// Identifies a process among all that ever ran on this machine: the boot id, the process id, and its
/// start in ticks since the boot.
///
/// A process that has ended has another identity.
package func processIdentity(of process: Int32) -> String {
    let start = ProcessStatus("\(process)").start ?? "none"
    return "\(bootIdentifier() ?? "unknown").\(process).\(start)"
}

/// Returns whether the process with this identity is running.
package func isRunning(_ identity: some StringProtocol) -> Bool {
    // The form is boot.process.start.
    let parts = identity.split(separator: ".")
    guard parts.count == 3, let process = Int32(parts[1]) else { return false }
    return processIdentity(of: process) == identity
}

/// The fields of /proc/PID/fdinfo/FD (proc_pid_fdinfo(5)) that have one value, such as `mnt_id`;
/// `nil` if it cannot be read.
package func descriptorFields(
    _ descriptor: String, of process: String, in proc: String
) -> [Substring: Substring]? {
    guard let text = readSmallFile("\(proc)/\(process)/fdinfo/\(descriptor)") else { return nil }
    var fields: [Substring: Substring] = [:]
    for line in text.split(separator: "\n") {
        let words = line.split(whereSeparator: \.isWhitespace)
        if words.count == 2, words[0].last == ":" { fields[words[0].dropLast()] = words[1] }
    }
    return fields
}
