// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Glibc
internal import LinuxIO
internal import SyncEngine

/// The work whose instructions `tools/check-instructions` counts: fixed input, one worker, no I/O.
///
///     instructions local    two local devices that differ in 1 % and in half of their blocks
///     instructions remote   by digests and all their frames: a push of 1 %, a pull of half
@main struct Instructions {
    /// Bytes of each device; enough that the start of the program does not count.
    private static let size = 128 << 20

    static func main() {
        let source = RepeatingDevice("source", content(), size: size)
        switch CommandLine.arguments.dropFirst() {
        case ["local"]:
            run(source, target(every: 100), changedOf: 100)
            run(source, target(every: 2), changedOf: 2)
        case ["remote"]:
            run(source, FramedDevice(target(every: 100)), changedOf: 100)
            run(FramedDevice(source), target(every: 2), changedOf: 2)
        default: exit(64)
        }
    }

    private static func run(
        _ source: any BlockDevice, _ target: any BlockDevice, changedOf step: Int
    ) {
        let report = synchronize(
            source: source, target: target, options: SyncOptions(concurrency: 1),
            control: RunControl())
        if let error = report.failure ?? report.flushError { fatalError("\(error)") }
        let expected = size / window * changedBlocks(every: step).count * block
        guard report.tally.different == expected else {
            fatalError("\(report.tally.different) bytes differ, not \(expected)")
        }
    }

    private static let block = BlockLayout.defaultBlock
    private static let window = 1 << 20

    private static func changedBlocks(every step: Int) -> [Int] {
        Array(stride(from: step / 2, to: window / block, by: step))
    }

    /// Different bytes everywhere, and a block of zeros in each 64.
    ///
    /// Without `SplitMix64`, whose instructions would be counted among those of its target.
    private static func content() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: window)
        bytes.withUnsafeMutableBytes { bytes in
            for start in stride(from: 0, to: window, by: 8) where start / block % 64 != 0 {
                bytes.storeBytes(
                    of: UInt64(start + 1) &* 0x9E37_79B9_7F4A_7C15, toByteOffset: start,
                    as: UInt64.self)
            }
        }
        return bytes
    }

    /// A target in which one block of `step` differs.
    private static func target(every step: Int) -> RepeatingDevice {
        var bytes = content()
        for changed in changedBlocks(every: step) { bytes[changed * block] ^= 1 }
        return RepeatingDevice("target", bytes, size: size)
    }
}

/// A device that repeats one window, and forgets what is written to it.
final class RepeatingDevice: BlockDevice {
    let name: String
    let geometry: Geometry
    private let window: [UInt8]

    init(_ name: String, _ window: [UInt8], size: Int) {
        self.name = name
        self.window = window
        geometry = Geometry(size: size, logicalSector: 512, alignment: 4096)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        window.withUnsafeBytes { window in
            var done = 0
            while done < buffer.count {
                let start = (offset + done) % window.count
                let count = min(buffer.count - done, window.count - start)
                slice(buffer, done, done + count).copyMemory(
                    from: slice(window, start, start + count))
                done += count
            }
        }
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {}
    func zero(_ range: ByteRange) throws(IOError) {}
    func flush() throws(IOError) {}
    func checkIdentity() throws(IOError) {}
    func hasForeignWrites() -> Bool { false }
    func hadOtherWriters() -> Bool { false }
    func changeCounter() -> ChangeCounter? { nil }
    func persistentChangeCounter() -> ChangeCounter? { nil }
    var reasonForNoCounter: String? { nil }
}
