// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Foundation
import LinuxIO
import TestSupport
import Testing

@Suite(.blocking, .timeLimit(.minutes(60))) struct ReaderProcessTests {
    private let scratch: ScratchDirectory

    init() throws { scratch = try ScratchDirectory() }

    private func soon() -> ContinuousClock.Instant { .now + .milliseconds(200) }

    @Test func `an image is read to its ragged end, and not beyond`() throws {
        var random = SeededGenerator(seed: 1)
        let content = random.bytes(10_000)
        let path = scratch.file("image")
        try Data(content).write(to: URL(fileURLWithPath: path))
        let image = try ImageFile(path: path, name: "image", access: .read)
        let reader = image.spotReader(room: 8192)
        for range in [
            ByteRange(offset: 0, length: 4096), ByteRange(4096, to: 10_000),
            ByteRange(8192, to: 10_000), ByteRange(offset: 0, length: 8192),
        ] {
            reader.start(range)
            guard case .bytes(let bytes) = reader.wait(until: nil, unless: { false }) else {
                Issue.record("\(range) was not read")
                continue
            }
            #expect(Array(bytes) == Array(content[range.offset..<range.end]))
        }
        reader.start(ByteRange(offset: 8192, length: 4096))
        guard case .failed(let error) = reader.wait(until: nil, unless: { false }) else {
            Issue.record("it was read")
            return
        }
        #expect(error.reason == "ended after 1808 bytes" && !error.isMediumError)
    }

    @Test(
        .enabled(if: SilentDisk.isPossible, "needs root, FUSE and qemu-storage-daemon"),
        .silentDisk)
    func `a read without an answer is given up, and its process ends with the answer`() throws {
        let silent = try SilentDisk()
        let disk = try BlockSpecialFile(path: silent.path, name: "silent", access: .read)
        let reader = disk.spotReader(room: 4096)
        for count in 1...3 {
            reader.start(ByteRange(offset: 4096 * count, length: 4096))
            guard case .late = reader.wait(until: soon(), unless: { false }) else {
                Issue.record("it has answered")
                return
            }
            #expect(reader.openReads == count)
        }
        reader.start(ByteRange(offset: 0, length: 512))
        guard case .cancelled = reader.wait(until: nil, unless: { true }) else {
            Issue.record("it has answered")
            return
        }
        #expect(reader.openReads == 4)
        silent.end()
        #expect(becomesTrue { reader.openReads == 0 })
    }
}
