// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO

/// What this process takes of the system, from proc_pid_stat(5).
struct ProcessUsage {
    /// Seconds of processor time, of the user and the system.
    var processorTime: Double
    var threads: Int
    /// Seconds between the start of the machine and the start of the process.
    private var start: Double
    /// Bytes.
    var virtualMemory: Int
    /// Bytes.
    var residentMemory: Int

    /// `nil` without /proc, as in some chroots.
    init?() {
        guard let text = readSmallFile("/proc/self/stat"), let end = text.lastIndex(of: ")") else {
            return nil
        }
        // From the third field, behind the program's name.
        let fields = text[end...].dropFirst().split(separator: " ").map { Int($0) ?? 0 }
        guard fields.count > 21 else { return nil }
        let ticks = Double(sysconf(Int32(_SC_CLK_TCK)))
        processorTime = (Double(fields[11]) + Double(fields[12])) / ticks
        threads = fields[17]
        start = Double(fields[19]) / ticks
        virtualMemory = fields[20]
        let pages = max(0, min(fields[21], Int.max / (1 << 20)))
        residentMemory = pages * sysconf(Int32(_SC_PAGESIZE))
    }

    /// When the process started, in seconds since 1970; read once, since clocks are adjusted.
    static let startTime: Double? = {
        guard let usage = ProcessUsage() else { return nil }
        var (now, sinceBoot) = (timespec(), timespec())
        clock_gettime(CLOCK_REALTIME, &now)
        clock_gettime(CLOCK_BOOTTIME, &sinceBoot)
        return ((now.seconds - sinceBoot.seconds + usage.start) * 100).rounded() / 100
    }()

    /// Open descriptors, without the one that counts them; `nil` without /proc.
    static var descriptors: Int? {
        let count = namesInDirectory("/proc/self/fd").count
        return count > 0 ? count - 1 : nil
    }

    /// The limit of open descriptors.
    static var mostDescriptors: Int? {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else {
            return nil
        }
        return Int(clamping: limit.rlim_cur)
    }
}

extension timespec {
    fileprivate var seconds: Double { Double(tv_sec) + Double(tv_nsec) / 1e9 }
}
