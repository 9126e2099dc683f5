// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Glibc
import Synchronization
import SystemPackage
import TestSupport
import Testing

@testable import LinuxIO

@Suite struct SystemCallTests {
    @Test func `an interrupted system call is made again`() throws {
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

    @Test func `any error but an interrupt is thrown`() {
        #expect(throws: Errno.ioError) {
            try retryingInterrupts {
                errno = EIO
                return -1
            }
        }
    }
}

@Suite struct ByteStringTests {
    @Test func `texts are the same only if their bytes are`() {
        let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}")
        #expect(composed == decomposed, "Swift compares characters")
        #expect(!composed.isSame(as: decomposed) && composed.isSame(as: composed))
        #expect(ByteString(composed) != ByteString(decomposed))
        let known = [ByteString(composed): 1]
        #expect(known[ByteString(composed)] == 1 && known[ByteString(decomposed)] == nil)
    }

    @Test func `a text begins with the bytes of another one`() {
        for (text, start, isStart) in [
            ("/srv/\u{301}x", "/srv/", true), ("/srv/cafe\u{301}/x", "/srv/caf\u{e9}/", false),
            ("/srv", "", true), ("/srv", "/srv/", false),
        ] {
            #expect(text.begins(with: start) == isStart)
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

    @Test func `reading at the end gives nothing, and the status has the size`() throws {
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
    func `aligned memory is zeroed, and at least as large as requested`(count: Int) {
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

@Suite struct FileStatusTests {
    @Test func `a file that was removed and created again under its name is another file`() throws {
        let scratch = try ScratchDirectory()
        let path = try scratch.sparseFile("image", size: 4096)
        let open = try OwnedDescriptor.open(path, flags: O_RDWR)
        let first = try FileStatus(path: path)
        #expect(try open.status().born == first.born)
        #expect(try open.status().isSameFile(as: first))
        _ = consume open
        try #require(unlink(path) == 0)
        // Their birth times differ after a tick of the kernel's clock, of 10 ms at most.
        usleep(20_000)
        _ = try scratch.sparseFile("image", size: 4096)
        // Most file systems give it the same inode number again.
        #expect(try !FileStatus(path: path).isSameFile(as: first))
    }

    @Test func `the birth time of a file counts if both statuses have one`() throws {
        let scratch = try ScratchDirectory()
        let status = try FileStatus(path: try scratch.sparseFile("image", size: 4096))
        var other = status
        other.size = 1
        other.changed += 1
        other.born = nil
        #expect(other.isSameFile(as: status) && status.isSameFile(as: other))
        other.born = 1
        #expect(!other.isSameFile(as: status) || status.born == nil)
        other = status
        other.inode += 1
        #expect(!other.isSameFile(as: status))
    }

    /// In units of 512 bytes, as st_blocks has them.
    @Test(arguments: [
        (0, 0), (8, 4096), (1 << 53, 1 << 62), (1 << 54, Int.max), (Int.max, Int.max), (-1, 0),
        (-1 << 54, 0),
    ])
    func `the allocated bytes are in range, whatever number a file system reports`(
        blocks: Int, allocated: Int
    ) {
        var answer = stat()
        answer.st_mode = S_IFREG | 0o644
        answer.st_blocks = blocks
        #expect(FileStatus(answer, born: nil).allocated == allocated)
    }

    @Test(arguments: [Int.max, Int.min])
    func `the extremes of all numbers of a file system are accepted`(number: Int) {
        var answer = stat()
        answer.st_mode = S_IFREG | 0o644
        answer.st_blocks = number
        answer.st_size = number
        answer.st_ino = .max
        answer.st_nlink = .max
        answer.st_mtim = timespec(tv_sec: number, tv_nsec: number)
        answer.st_ctim = answer.st_mtim
        let status = FileStatus(answer, born: number)
        #expect(status.kind == .regular && status.links > 0)
        #expect(status.size == max(0, number))
        #expect(status.isSameFile(as: status))
    }
}

@Suite(.blocking) struct SmallFileTests {
    @Test func `a file of /proc is read whole`() throws {
        #expect(readSmallFile("/proc/self/stat")?.hasPrefix("\(getpid()) ") == true)
        #expect(readSmallFile("/none/such") == nil)
    }

    @Test func `bytes that are no UTF-8 do not hide the rest of a file`() throws {
        let scratch = try ScratchDirectory()
        try must("sh", "-c", "printf 'a\\377\nb\n' > \(scratch.file("bytes"))")
        #expect(readSmallFile(scratch.file("bytes")) == "a\u{FFFD}\nb")
    }
}

@Suite(.blocking) struct DirectoryTests {
    @Test func `names are listed as bytes, also those that are no UTF-8`() throws {
        let scratch = try ScratchDirectory()
        try must("sh", "-c", "cd \(scratch.path) && : > b && : > \"a$(printf '\\376')\"")
        let names = try bytesOfNamesInDirectory(KernelPath(scratch.path))
        #expect(Set(names) == [Array("b".utf8), Array("a".utf8) + [0xFE]])
        #expect(namesInDirectory(scratch.path) == ["a\u{FFFD}", "b"])
    }

    @Test func `a directory that cannot be read has a reason, and no names`() throws {
        let scratch = try ScratchDirectory()
        let file = try scratch.sparseFile("file", size: 1)
        for (path, errno) in [
            (scratch.file("none"), Errno.noSuchFileOrDirectory), (file, .notDirectory),
        ] {
            #expect(throws: errno) { _ = try bytesOfNamesInDirectory(KernelPath(path)) }
            #expect(namesInDirectory(path).isEmpty)
        }
    }
}

@Suite(.blocking) struct KernelPathTests {
    @Test func `paths that are no UTF-8 are told apart, and lead to their files`() throws {
        let scratch = try ScratchDirectory()
        let directory = scratch.path
        for byte in ["376", "377"] {
            let name = "\(directory)/a$(printf '\\\(byte)')"
            try must(
                "sh", "-c",
                "printf \(byte) > \"\(name)\" && printf '%s\n' \"\(name)\" > \(directory)/is\(byte)"
            )
        }
        let first = try #require(KernelPath(inFile: scratch.file("is376")))
        let second = try #require(KernelPath(inFile: scratch.file("is377")))
        #expect(first.bytes == Array("\(directory)/a".utf8) + [0xFE])
        #expect(first == KernelPath(inFile: scratch.file("is376")) && first != second)
        #expect(first.text == second.text, "as text they are the same")
        #expect(first.isAbsolute && !KernelPath("a").isAbsolute && !KernelPath("").isAbsolute)
        for path in [first, second] {
            let file = try OwnedDescriptor.open(path, flags: O_RDONLY)
            #expect(try file.status().isSameFile(as: FileStatus(path: path)))
        }
        #expect(try !FileStatus(path: first).isSameFile(as: FileStatus(path: second)))
        #expect(throws: Errno.noSuchFileOrDirectory) { _ = try FileStatus(path: first.text) }
        #expect(KernelPath(inFile: scratch.file("none")) == nil)
    }
}

@Suite struct IOErrorTests {
    @Test func `an error message is object, operation, reason`() {
        let error = IOError("/dev/sdx", "read at offset 0, length 512", .ioError)
        #expect(error.description == "/dev/sdx: read at offset 0, length 512: Input/output error")
    }

    @Test(arguments: [
        (Errno.ioError, true), (.noData, true), (.illegalByteSequence, true),
        (Errno(rawValue: EREMOTEIO), true), (.noSuchAddressOrDevice, false),
        (.operationNotSupportedByDevice, false),
        (.timedOut, false), (.noSpace, false),
    ])
    func `an unreadable sector is distinguished from a lost device`(errno: Errno, isMedium: Bool) {
        #expect(IOError("", "", errno).isMediumError == isMedium)
    }
}
