// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Glibc
import LinuxIO
import TestSupport
import Testing

@testable import DeviceProbe

/// Processes that have an image open for writing, as /proc shows them.
@Suite(.blocking, .timeLimit(.minutes(60))) struct ImageWritersTests {
    private let scratch: ScratchDirectory
    private let image: String

    init() throws {
        scratch = try ScratchDirectory()
        image = try scratch.sparseFile("image", size: MiB)
    }

    @Test func `programs that this process starts are no writers of the images that it has open`()
        async throws
    {
        let file = try OwnedDescriptor.open(image, flags: O_RDWR)
        let writers = ImageWriters(
            of: FileIdentity(try file.status()), path: image, SystemView())
        // Each has a copy of the descriptor until it executes its program.
        let starter = Task.detached {
            for _ in 0..<1000 where !Task.isCancelled { try must("true") }
        }
        for _ in 0..<300 { #expect(!writers.isAny()) }
        starter.cancel()
        try await starter.value
        _ = consume file
    }

    @Test func `a program that has the image open for writing is a writer until it ends`() throws {
        let writers = ImageWriters(
            of: FileIdentity(try FileStatus(path: image)), path: image, SystemView())
        #expect(!writers.isAny())
        let reader = try RunningProgram(["sh", "-c", "exec sleep 600 9<\(image)"])
        let writer = try RunningProgram(["sh", "-c", "exec sleep 600 9<>\(image)"])
        #expect(becomesTrue { writers.isAny() })
        writer.signal(SIGKILL)
        _ = try writer.wait()
        #expect(!writers.isAny())
        reader.signal(SIGKILL)
        _ = try reader.wait()
    }
}
