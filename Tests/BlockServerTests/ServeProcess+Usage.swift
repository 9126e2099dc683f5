// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport

/// What a server uses of the machine.
extension ServeProcess {
    private var directory: String { "/proc/\(process.processID)" }

    /// A field of /proc/PID/status in KiB.
    private func status(_ field: String) -> Int {
        let text = (try? String(contentsOfFile: "\(directory)/status", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix(field + ":") } ?? ""
        return line.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
    }

    /// Bytes of memory that it has now, and has had at most.
    var memory: (now: Int, peak: Int) { (status("VmRSS") << 10, status("VmHWM") << 10) }

    /// How many times it has read from files, as /proc/PID/io counts it.
    var reads: Int {
        let text = (try? String(contentsOfFile: "\(directory)/io", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("syscr:") } ?? ""
        return line.split(separator: " ").last.flatMap { Int($0) } ?? 0
    }

    /// How many descriptors it has open.
    var descriptors: Int {
        (try? FileManager.default.contentsOfDirectory(atPath: "\(directory)/fd").count) ?? 0
    }
}
