// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import Glibc
import LinuxIO
import TestSupport
import Testing

@testable import DeviceProbe

@Suite struct ClaimantsTests {
    @Test(.timeLimit(.minutes(2)))
    func `a process that waits for a device in place of this one is not named`() throws {
        let scratch = try ScratchDirectory()
        let fifo = scratch.file("fifo")
        try #require(mkfifo(fifo, 0o600) == 0)
        // The other process waits until the FIFO has a writer.
        let waiting = Threads.start(count: 1) { _ in
            _ = try? OwnedDescriptor.openElsewhere(fifo, flags: O_RDONLY)
        }
        var copies: [String] = []
        repeat {
            copies = namesInDirectory("/proc").filter { process in
                Int(process) != nil && process != "\(getpid())"
                    && ProcessStatus(process).parent != getpid()
                    && Claimants.isOurOwnCopy(process, in: "/proc")
            }
        } while copies.isEmpty
        let writer = try OwnedDescriptor.open(fifo, flags: O_WRONLY)
        waiting.wait()
        _ = consume writer
    }

    @Test func `a copy of this process that is ending is not named, another program is`()
        throws
    {
        let scratch = try ScratchDirectory()
        try must("mkdir", "-p", scratch.file("self"), scratch.file("1"), scratch.file("2"))
        try must("ln", "-s", "/usr/sbin/blkferry", scratch.file("self/exe"))
        // The kernel has released the program of both.
        for (process, name) in [("1", "blkferry-fork"), ("2", "python3")] {
            try "\(name)\n".write(
                toFile: scratch.file("\(process)/comm"), atomically: false, encoding: .utf8)
        }
        #expect(Claimants.isOurOwnCopy("1", in: scratch.path))
        #expect(!Claimants.isOurOwnCopy("2", in: scratch.path))
    }
}
