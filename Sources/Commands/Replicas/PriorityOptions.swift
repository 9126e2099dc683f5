// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import CLinuxBlock
internal import LinuxIO
internal import SystemPackage

/// How much of the processor and of the disks a run leaves to other programs.
struct PriorityOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The nice value of the run, -20 to 19, as with nice(1).", valueName: "n"))
    var nice: Int?

    @Option(
        help: ArgumentHelp(
            "The I/O class of the run, as with ionice(1): idle, best-effort[:LEVEL] or "
                + "realtime[:LEVEL], with a level of 0 to 7.", valueName: "class"))
    var ionice: IOPriority?

    func validate() throws {
        guard let nice, !(-20...19).contains(nice) else { return }
        throw ValidationError("--nice \(nice): must be from -20 to 19")
    }

    /// Sets both for this thread, and for threads and programs that it starts.
    ///
    /// A priority that the system refuses is no reason to lose a replica.
    func apply(_ console: Console) {
        if let nice, clb_set_nice(Int32(nice)) != 0 {
            console.warning("nice \(nice): set: \(currentErrno())")
        }
        if let ionice, clb_set_io_priority(ionice.number, ionice.level) != 0 {
            console.warning("ionice \(ionice.name): set: \(currentErrno())")
        }
    }
}

/// A class of ioprio_set(2), and a level in it.
struct IOPriority: ExpressibleByArgument {
    let name: String
    let number: Int32
    /// 0, the first to be served, to 7.
    let level: Int32

    init?(argument: String) {
        let parts = argument.split(separator: ":", omittingEmptySubsequences: false)
        let numbers: [Substring: Int32] = ["realtime": 1, "best-effort": 2, "idle": 3]
        guard let number = numbers[parts[0]], parts.count <= (number == 3 ? 1 : 2) else {
            return nil
        }
        // ionice(1) has this default.
        guard let level = parts.count == 1 ? 4 : Int32(parts[1]), (0...7).contains(level) else {
            return nil
        }
        name = argument
        self.number = number
        self.level = number == 3 ? 0 : level
    }
}
