// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import LinuxIO
import Synchronization
import SystemPackage
import TestSupport
import Testing

@testable import BlockDevices

@Suite struct ZeroMethodsTests {
    /// A device of one byte that counts what is asked of it.
    private final class Bench: Sendable {
        let calls = Mutex<[String]>([])
        let isZeroNow = Atomic(false)

        func method(
            _ name: String, error: Errno? = nil, works: Bool = true
        ) -> ZeroMethods.Method {
            ZeroMethods.Method(name) { _ throws(Errno) in
                self.calls.withLock { $0.append(name) }
                if let error { throw error }
                self.isZeroNow.store(works, ordering: .relaxed)
            }
        }

        func ladder(_ methods: [ZeroMethods.Method]) -> ZeroMethods {
            ZeroMethods(methods) { _ throws(IOError) in
                self.calls.withLock { $0.append("read") }
                return self.isZeroNow.load(ordering: .relaxed)
            }
        }
    }

    private let range = ByteRange(offset: 0, length: 4096)

    @Test func `the first zeroing method that works is proved once and used from then on`() throws {
        let bench = Bench()
        let ladder = bench.ladder([bench.method("punch"), bench.method("zero out")])
        for _ in 0..<3 { #expect(try ladder.zero(range, name: "disk")) }
        #expect(bench.calls.withLock { $0 } == ["punch", "read", "punch", "punch"])
    }

    @Test(arguments: [Errno.notSupported, .inappropriateIOCTLForDevice, .invalidArgument])
    func `a zeroing method that the device does not have is tried once`(error: Errno) throws {
        let bench = Bench()
        let ladder = bench.ladder([bench.method("punch", error: error), bench.method("zero out")])
        for _ in 0..<2 { #expect(try ladder.zero(range, name: "disk")) }
        #expect(bench.calls.withLock { $0 } == ["punch", "zero out", "read", "zero out"])
    }

    @Test func `a zeroing method after which old data is read is not trusted again`() throws {
        let bench = Bench()
        let ladder = bench.ladder([bench.method("punch", works: false)])
        for _ in 0..<2 { #expect(try !ladder.zero(range, name: "disk")) }
        #expect(bench.calls.withLock { $0 } == ["punch", "read"])
    }

    @Test func `a zeroing method without a promise is proved each time, over the whole range`()
        throws
    {
        let dirty = Atomic(-1)
        let seen = Mutex<[ByteRange]>([])
        let discard = ZeroMethods.Method("discard", isPromise: false) { _ throws(Errno) in }
        let ladder = ZeroMethods([discard]) { piece throws(IOError) in
            seen.withLock { $0.append(piece) }
            return !(piece.offset..<piece.end).contains(dirty.load(ordering: .relaxed))
        }
        let whole = ByteRange(offset: 4096, length: 1 << 20)
        for _ in 0..<2 { #expect(try ladder.zero(whole, name: "disk")) }
        let pieces = seen.withLock { $0 }
        #expect(pieces.allSatisfy { $0.length <= 2 * ZeroMethods.ends })
        #expect(pieces.reduce(0) { $0 + $1.length } == 2 * whole.length)
        #expect(Set(pieces.map(\.offset)).count * 2 == pieces.count)
        dirty.store(500_000, ordering: .relaxed)
        #expect(try !ladder.zero(whole, name: "disk"))
        // Not trusted again, though nothing is wrong any more.
        dirty.store(-1, ordering: .relaxed)
        #expect(try !ladder.zero(whole, name: "disk"))
    }

    @Test func `an error of one range leaves it to be written, and the zeroing method in use`()
        throws
    {
        let bench = Bench()
        let ladder = bench.ladder([bench.method("punch", error: .ioError)])
        for _ in 0..<2 { #expect(try !ladder.zero(range, name: "disk")) }
        #expect(bench.calls.withLock { $0 } == ["punch", "punch"])
    }

    @Test func `a range that cannot be read back is left to be written, and the method in use`()
        throws
    {
        let bench = Bench()
        let ladder = ZeroMethods([bench.method("punch")]) { _ throws(IOError) in
            throw IOError("disk", "read", .ioError)
        }
        for _ in 0..<2 { #expect(try !ladder.zero(range, name: "disk")) }
        #expect(bench.calls.withLock { $0 } == ["punch", "punch"])
    }

    @Test func `a full device is an error`() {
        let bench = Bench()
        let ladder = bench.ladder([bench.method("punch", error: .noSpace)])
        let error = #expect(throws: IOError.self) { try ladder.zero(range, name: "disk") }
        #expect(error?.description.hasPrefix("disk: zero at offset 0, length 4096: ") == true)
    }
}

@Suite struct ZeroDetectionTests {
    @Test(arguments: [0, 1, 7, 8, 9, 15, 16, 17, 511, 4096])
    func `a single set bit anywhere is found`(length: Int) {
        var bytes = [UInt8](repeating: 0, count: length)
        #expect(bytes.withUnsafeBytes { isZero($0) })
        for index in 0..<length {
            bytes[index] = 0x80
            #expect(!bytes.withUnsafeBytes { isZero($0) }, "byte \(index) of \(length)")
            bytes[index] = 0
        }
    }
}
