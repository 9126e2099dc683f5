// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import Synchronization
internal import SystemPackage

package enum Access: Hashable, Sendable {
    case read
    case readWrite
}

/// The I/O of images and block devices, which bypasses the page cache.
///
/// An unaligned end of the source needs a second, buffered descriptor. If the file system refuses
/// O_DIRECT, all I/O is buffered, and pages are dropped after use.
final class DirectFile: Sendable {
    let name: String
    let isDirect: Bool
    /// Bytes; the unit of offsets, lengths and memory addresses of direct I/O.
    let alignment: Int
    let main: OwnedDescriptor
    private let buffered: OwnedDescriptor
    /// With links under /dev/disk resolved.
    let path: String
    /// Whether the file had a name in any directory when it was opened.
    let hasName: Bool
    /// The backing files of buffered loop devices below; reads come from their page cache.
    private let cachedBackings = Mutex<[BackingFile]>([])
    /// The backing files of all loop devices below.
    let backings = Mutex<[BackingFile]>([])
    let backingWatch = Mutex<BackingWatch?>(nil)
    let writersCheck = Mutex<(@Sendable () -> Bool)?>(nil)
    /// The change counter when other writers were last reported.
    let counterOfWriters = Mutex<ChangeCounter?>(nil)
    private let companions = Mutex<[any AnyObject & Sendable]>([])
    /// Released after the descriptors are closed, because Swift releases properties in their order.
    let survivor = Mutex<(any AnyObject & Sendable)?>(nil)
    /// Set when the file is locked for writing.
    let watch = Mutex<WriteWatch?>(nil)
    let checksForOthers = Mutex<[@Sendable () -> Bool]>([])
    /// The lowest offset in bytes that went through the page cache.
    private let firstBuffered = Atomic(Int.max)
    /// Bytes that this process asked the kernel to write or zero past the page cache, done or not.
    let requested = Atomic(0)
    /// Whether a write went through the page cache, whose pages the kernel may write any number of
    /// times.
    let hasBufferedWrites = Atomic(false)

    /// - Parameter flags: without O_DIRECT.
    init(path: String, name: String, flags: Int32) throws(IOError) {
        do throws(Errno) {
            var direct = true
            do throws(Errno) {
                main = try OwnedDescriptor.open(path, flags: flags | clb_O_DIRECT)
            } catch .invalidArgument {
                // With EINVAL a file system reports that it has no direct I/O (open(2)).
                main = try OwnedDescriptor.open(path, flags: flags)
                direct = false
            }
            let alignment = direct ? try Self.directAlignment(of: main) : nil
            if direct && alignment == nil {
                // The file system accepts O_DIRECT but has no direct I/O (ext4 with data=journal).
                let descriptor = main.rawValue
                _ = try retryingInterrupts { fcntl(descriptor, F_SETFL, flags & O_ACCMODE) }
                direct = false
            }
            isDirect = direct
            self.alignment = alignment ?? 1
            self.name = name
            buffered = try OwnedDescriptor.open(path, flags: flags & O_ACCMODE)
            let (first, second) = (try main.status(), try buffered.status())
            self.path =
                path.hasPrefix("/dev/disk/") ? (try? canonicalPath(path)) ?? path : path
            hasName = first.links > 0
            // The path may have led to another file the second time.
            guard first.isSameFile(as: second) else { throw .staleNFSFileHandle }
            if !direct {
                // After a failed flush the page cache contains data that is not on the medium.
                try? main.synchronizeData()
                main.dropCachedPages()
            }
        } catch {
            throw IOError(name, "open", error)
        }
    }

    deinit {
        cachedBackings.withLock { $0 = [] }
        forgetPages()
    }

    func keep(_ objects: [any AnyObject & Sendable]) { companions.withLock { $0 += objects } }

    func releaseCompanions() { companions.withLock { $0 = [] } }

    /// The alignment for direct I/O in bytes; `nil` if the file has no direct I/O.
    private static func directAlignment(of file: borrowing OwnedDescriptor) throws(Errno) -> Int? {
        let descriptor = file.rawValue
        var answer = clb_direct_io_alignment()
        if clb_get_direct_io_alignment(descriptor, &answer) == 0 && answer.known {
            return alignment(offset: Int(answer.offset), memory: Int(answer.memory))
        }
        if try file.status().kind == .blockDevice {
            var sector: Int32 = 0
            _ = try retryingInterrupts { clb_get_logical_sector_size(descriptor, &sector) }
            return Int(sector)
        }
        // Kernels before 6.1 and some file systems do not report it; 4 KiB suits every disk.
        return 4096
    }

    /// The unit of transfers in bytes, from statx(2); `nil` without usable direct I/O (offset
    /// alignment 0).
    static func alignment(offset: Int, memory: Int) -> Int? {
        let both = max(offset, memory)
        guard offset > 0, both.nonzeroBitCount == 1, memory <= AlignedBuffer.alignment,
            offset <= largestAlignment
        else { return nil }
        return both
    }

    /// Bytes; more than any file system or disk needs, and small enough for a worker's memory.
    private static let largestAlignment = 1 << 20

    /// Locks the whole file; `false` if another process holds a conflicting lock.
    func lock(exclusive: Bool) throws(IOError) -> Bool {
        let descriptor = main.rawValue
        let isHeld = { [.resourceTemporarilyUnavailable, .permissionDenied].contains($0 as Errno) }
        do throws(Errno) {
            try waitingForHolders(isHeld) { () throws(Errno) in
                _ = try retryingInterrupts { clb_lock(descriptor, exclusive) }
            }
            // flock(2), which systemd and others use, is independent of that lock.
            let operation = (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB
            do throws(Errno) {
                try waitingForHolders(isHeld) { () throws(Errno) in
                    _ = try retryingInterrupts { flock(descriptor, operation) }
                }
            } catch {
                // Some file systems do not have flock(2).
                if isHeld(error) { throw error }
            }
            // Start the watch after the lock, because its previous holder may have written until
            // now.
            if exclusive { watch.withLock { $0 = WriteWatch(main) } }
            return true
        } catch .resourceTemporarilyUnavailable, .permissionDenied {
            return false
        } catch {
            throw IOError(name, "lock", error)
        }
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        let aligned = alignedLength(buffer.count)
        try transfer("read", ByteRange(offset: offset, length: aligned)) { done throws(Errno) in
            try main.readOnce(into: slice(buffer, done, aligned), at: offset + done)
        }
        guard aligned < buffer.count else { return }
        let tail = ByteRange(offset: offset + aligned, length: buffer.count - aligned)
        try transfer("read", tail) { done throws(Errno) in
            try buffered.readOnce(
                into: slice(buffer, aligned + done, buffer.count), at: tail.offset + done)
        }
        firstBuffered.min(tail.offset, ordering: .relaxed)
        let pages = tail.offset / 4096 * 4096
        buffered.dropCachedPages(offset: pages, length: tail.end - pages)
    }

    /// Starts a process that reads the file into shared memory; -1 if the system refuses it.
    func startReader(_ memory: UnsafeMutableRawBufferPointer) -> Int32 {
        clb_start_reader(main.rawValue, buffered.rawValue, memory.baseAddress, memory.count)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        let aligned = alignedLength(buffer.count)
        requested.add(aligned, ordering: .sequentiallyConsistent)
        try transfer("write", ByteRange(offset: offset, length: aligned)) { done throws(Errno) in
            try main.writeOnce(slice(buffer, done, aligned), at: offset + done)
        }
        guard aligned < buffer.count else { return }
        let tail = ByteRange(offset: offset + aligned, length: buffer.count - aligned)
        firstBuffered.min(tail.offset, ordering: .relaxed)
        hasBufferedWrites.store(true, ordering: .relaxed)
        try transfer("write", tail) { done throws(Errno) in
            try buffered.writeOnce(
                slice(buffer, aligned + done, buffer.count), at: tail.offset + done)
        }
    }

    /// Bytes; longer transfers gain nothing from being done together.
    private static let long = 256 << 10

    /// Does small transfers together that direct I/O can carry completely.
    func attempt(_ transfers: [Transfer], _ direction: Transfer.Direction) -> [Bool] {
        guard isDirect, transfers.count > 1 else { return transfers.map { _ in false } }
        let fit = transfers.map { transfer in
            let count = transfer.memory.count
            return (1..<Self.long).contains(count) && alignedLength(count) == count
                && UInt(bitPattern: transfer.memory.baseAddress) % UInt(alignment) == 0
        }
        let chosen =
            fit.allSatisfy(\.self) ? transfers : zip(transfers, fit).filter(\.1).map(\.0)
        let count = direction == .write ? chosen.reduce(0) { $0 + $1.memory.count } : 0
        requested.add(count, ordering: .sequentiallyConsistent)
        guard let results = TransferRing.perform(chosen, direction, on: main) else {
            // The caller writes them with `write`, which counts them.
            requested.subtract(count, ordering: .sequentiallyConsistent)
            return transfers.map { _ in false }
        }
        var rest = results[...]
        return fit.map { $0 && rest.popFirst() == true }
    }

    func writeZeros(_ range: ByteRange) throws(IOError) {
        var offset = range.offset
        while offset < range.end {
            let length = min(Self.zeros.count, range.end - offset)
            try write(UnsafeRawBufferPointer(rebasing: Self.zeros.bytes[..<length]), at: offset)
            offset += length
        }
    }

    func synchronize() throws(IOError) {
        do throws(Errno) {
            try main.synchronizeData()
        } catch {
            // The kernel marks pages clean that it failed to write, so a comparison would find the
            // new data in them.
            forgetPages()
            throw IOError(name, "flush", error, advice: Self.adviceAfterFlush)
        }
        forgetPages()
    }

    /// On a failing device a comparison may see data that never reached the medium.
    static let adviceAfterFlush =
        "What was written may not be on the medium: sync --whole-file writes all of it again."

    /// Makes reads after each flush come from the medium, even through buffered loop devices.
    func flushThrough(_ files: [BackingFile]) {
        for file in files { file.forgetPages() }
        cachedBackings.withLock { $0 = files }
    }

    /// Drops the clean pages that this file left in the page cache.
    private func forgetPages() {
        if isDirect {
            let first = firstBuffered.load(ordering: .relaxed)
            if first < Int.max { buffered.dropCachedPages(offset: first / 4096 * 4096) }
        } else {
            buffered.dropCachedPages()
        }
        for backing in cachedBackings.withLock({ $0 }) { backing.forgetPages() }
    }

    /// Bytes of a transfer that direct I/O can carry; 0 without direct I/O.
    private func alignedLength(_ count: Int) -> Int {
        isDirect ? count / alignment * alignment : 0
    }

    /// Repeats a call until the whole range is transferred, because one call may transfer less.
    private func transfer(
        _ operation: String, _ range: ByteRange, _ once: (_ done: Int) throws(Errno) -> Int
    ) throws(IOError) {
        var done = 0
        while done < range.length {
            let count: Int
            do throws(Errno) { count = try once(done) } catch {
                throw IOError(name, "\(operation) at \(range)", error)
            }
            guard count > 0 else {
                throw IOError(
                    name, "\(operation) at \(range)", reason: "ended after \(done) bytes",
                    advice: "The device or image is now shorter than when it was opened.")
            }
            done += count
        }
    }

    /// Only read, so it costs address space but no memory.
    private static let zeros = AlignedBuffer(count: 1 << 20)
}
