// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Glibc
import LinuxIO
import Synchronization
import SystemPackage
import TestSupport
import Testing

@Suite struct SystemCallTests {
    @Test func `a call that is interrupted is made again`() throws {
        var attempts = 0
        let result = try retryingInterrupts {
            attempts += 1
            if attempts < 3 {
                errno = EINTR
                return -1
            }
            return 7
        }
        #expect(result == 7 && attempts == 3)
    }

    @Test func `any other error is thrown`() {
        #expect(throws: Errno.ioError) {
            try retryingInterrupts {
                errno = EIO
                return -1
            }
        }
    }
}

@Suite struct OwnedDescriptorTests {
    @Test func `a descriptor is closed with its owner, and not inherited by programs`() throws {
        let scratch = try ScratchDirectory()
        let path = try scratch.sparseFile("file", size: 1)
        let number: Int32
        do {
            let file = try OwnedDescriptor.open(path, flags: O_RDONLY)
            number = file.rawValue
            #expect(fcntl(number, F_GETFD) == FD_CLOEXEC)
        }
        // Another test may have opened a file of the same number meanwhile, but not this file.
        var status = stat()
        var original = stat()
        #expect(stat(path, &original) == 0)
        #expect(fstat(number, &status) != 0 || status.st_ino != original.st_ino)
    }

    @Test func `a missing file is ENOENT`() {
        #expect(throws: Errno.noSuchFileOrDirectory) {
            _ = try OwnedDescriptor.open("/none/such", flags: O_RDONLY)
        }
    }

    @Test func `reading at the end gives nothing, and status tells the size`() throws {
        let scratch = try ScratchDirectory()
        let path = try scratch.sparseFile("file", size: 100)
        let file = try OwnedDescriptor.open(path, flags: O_RDWR)
        var bytes = [UInt8](repeating: 1, count: 200)
        #expect(try bytes.withUnsafeMutableBytes { try file.readOnce(into: $0, at: 50) } == 50)
        #expect(try bytes.withUnsafeMutableBytes { try file.readOnce(into: $0, at: 100) } == 0)
        #expect(try file.status().size == 100)
        #expect(try file.status().kind == .regular)
        try file.synchronizeData()
    }
}

@Suite struct AlignedBufferTests {
    @Test(arguments: [1, 4096, 100_000, 2 << 20, 5_000_000])
    func `memory is aligned, zeroed, and at least as large as asked for`(count: Int) {
        let buffer = AlignedBuffer(count: count)
        #expect(buffer.count >= count && buffer.count % AlignedBuffer.alignment == 0)
        #expect(UInt(bitPattern: buffer.bytes.baseAddress) % UInt(AlignedBuffer.alignment) == 0)
        #expect(buffer.bytes.allSatisfy { $0 == 0 })
        buffer.bytes[buffer.count - 1] = 1
    }
}

@Suite struct ThreadsTests {
    @Test func `every thread gets its number, and wait returns after the last`() {
        let seen = Mutex<Set<Int>>([])
        Threads.start(count: 9) { index in
            usleep(1000)
            seen.withLock { _ = $0.insert(index) }
        }.wait()
        #expect(seen.withLock { $0 } == Set(0..<9))
    }
}

@Suite struct SmallFileTests {
    @Test func `a file of proc is read whole`() throws {
        #expect(readSmallFile("/proc/self/stat")?.hasPrefix("\(getpid()) ") == true)
        #expect(readSmallFile("/none/such") == nil)
    }

    @Test func `what is no UTF-8 does not hide the rest`() throws {
        let scratch = try ScratchDirectory()
        try must("sh", "-c", "printf 'a\\377\nb\n' > \(scratch.file("bytes"))")
        #expect(readSmallFile(scratch.file("bytes")) == "a\u{FFFD}\nb")
    }
}

@Suite struct IOErrorTests {
    @Test func `a message is object, operation, reason`() {
        let error = IOError("/dev/sdx", "read at offset 0, length 512", .ioError)
        #expect(error.description == "/dev/sdx: read at offset 0, length 512: Input/output error")
    }

    @Test(arguments: [
        (Errno.ioError, true), (.noData, true), (.illegalByteSequence, true),
        (Errno(rawValue: EREMOTEIO), true), (.noSuchAddressOrDevice, false),
        (.operationNotSupportedByDevice, false),
        (.timedOut, false), (.noSpace, false),
    ])
    func `a bad place is told from a bad device`(errno: Errno, isMedium: Bool) {
        #expect(IOError("", "", errno).isMediumError == isMedium)
    }
}
