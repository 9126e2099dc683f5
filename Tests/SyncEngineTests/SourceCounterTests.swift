// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LinuxIO
import TestSupport
import Testing

@testable import SyncEngine

/// A device whose change counter stays the same.
private final class CountedDevice: WrappingDevice {
    let base: any BlockDevice
    private let counter: Int

    init(_ base: any BlockDevice, counter: Int) {
        self.base = base
        self.counter = counter
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        try base.read(into: buffer, at: offset)
    }
    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        try base.write(buffer, at: offset)
    }
    func zero(_ range: ByteRange) throws(IOError) { try base.zero(range) }
    func flush() throws(IOError) { try base.flush() }
    func changeCounter() -> ChangeCounter? { ChangeCounter([counter]) }
}

@Suite struct SourceCounterTests {
    @Test(arguments: [(nil, false), (5, false), (4, true)] as [(Int?, Bool)])
    func `a write between the search for holes and the run counts as one during the run`(
        before: Int?, isChanged: Bool
    ) {
        let bytes = [UInt8](repeating: 1, count: 8192)
        let source = CountedDevice(MemoryDevice(bytes), counter: 5)
        var options = SyncOptions()
        options.sourceChangeCounter = before.map { ChangeCounter([$0]) }
        let compared = compare(
            source: source, target: MemoryDevice(bytes), options: options, control: RunControl())
        #expect(compared.sourceChanged == isChanged)
        let synced = synchronize(
            source: source, target: MemoryDevice(bytes), options: options, control: RunControl())
        #expect(synced.sourceChanged == isChanged)
    }
}
