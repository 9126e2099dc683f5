// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import SystemPackage
import TestSupport

/// `blkferry serve` as a process of its own.
final class ServeProcess {
    let process: RunningProgram
    let port: Int
    private let directory: String

    convenience init(_ arguments: String...) throws { try self.init(options: arguments) }

    /// - Parameter prefix: what goes before the program.
    init(options arguments: [String], prefix: [String] = []) throws {
        let listener = try Loopback.listen()
        port = try Loopback.port(of: listener)
        _ = consume listener
        process = try RunningProgram(
            prefix + [program, "serve", "--listen", "127.0.0.1:\(port)"] + arguments)
        directory = "/proc/\(process.processID)"
        let port = port
        guard becomesTrue({ (try? StreamSocket(port: port)) != nil }) else {
            throw Errno.connectionRefused
        }
    }

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
