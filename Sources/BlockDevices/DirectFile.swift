// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import Synchronization
internal import SystemPackage

/// How a local device is opened.
package enum Access: Hashable, Sendable {
    case read
    case readWrite
}

/// The I/O that images and block devices have in common: past the page cache, with the one ragged
/// tail that direct I/O cannot reach through a second, buffered descriptor.
///
/// Where the file system refuses O_DIRECT everything is buffered, and the pages are given back as
/// soon as they were used.
final class DirectFile: Sendable {
    let name: String
    let isDirect: Bool
    /// Bytes: what offsets, lengths and memory of direct I/O are multiples of.
    let alignment: Int
    let main: OwnedDescriptor
    private let buffered: OwnedDescriptor
    /// The lowest offset that went through the page cache, in bytes.
    private let firstBuffered = Atomic(Int.max)

    /// Opens a file that exists.
    ///
    /// - Parameters:
    ///   - path: the file's path.
    ///   - name: what the user calls it.
    ///   - flags: open(2)'s flags besides O_DIRECT.
    /// - Throws: what open(2) says.
    init(path: String, name: String, flags: Int32) throws(IOError) {
        do throws(Errno) {
            var direct = true
            do throws(Errno) {
                main = try OwnedDescriptor.open(path, flags: flags | clb_O_DIRECT)
            } catch .invalidArgument {
                // open(2): EINVAL is how a file system says that it has no direct I/O.
                main = try OwnedDescriptor.open(path, flags: flags)
                direct = false
            }
            let alignment = direct ? try Self.directAlignment(of: main) : nil
            if direct && alignment == nil {
                // It takes O_DIRECT but has no direct I/O (ext4 with data=journal).
                let descriptor = main.rawValue
                _ = try retryingInterrupts { fcntl(descriptor, F_SETFL, flags & O_ACCMODE) }
                direct = false
            }
            isDirect = direct
            self.alignment = alignment ?? 1
            self.name = name
            buffered = try OwnedDescriptor.open(path, flags: flags & O_ACCMODE)
            let (first, second) = (try main.status(), try buffered.status())
            // The path led to another file the second time.
            guard
                (first.fileSystem, first.inode, first.device)
                    == (second.fileSystem, second.inode, second.device)
            else { throw .staleNFSFileHandle }
        } catch {
            throw IOError(name, "open", error)
        }
    }

    deinit { forgetPages() }

    /// What direct I/O on the file must be aligned to, in bytes; `nil` where it has none.
    private static func directAlignment(of file: borrowing OwnedDescriptor) throws(Errno) -> Int? {
        let descriptor = file.rawValue
        var answer = clb_direct_io_alignment()
        if clb_get_direct_io_alignment(descriptor, &answer) == 0 && answer.known {
            return answer.offset == 0 ? nil : Int(max(answer.offset, answer.memory))
        }
        if try file.status().kind == .blockDevice {
            var sector: Int32 = 0
            _ = try retryingInterrupts { clb_get_logical_sector_size(descriptor, &sector) }
            return Int(sector)
        }
        // Kernels before 6.1, and file systems that do not say: 4 KiB satisfies every disk.
        return 4096
    }

    /// Locks the whole file for as long as it is open.
    ///
    /// - Returns: `false` when another process holds a lock that does not go together with it.
    func lock(exclusive: Bool) throws(IOError) -> Bool {
        let descriptor = main.rawValue
        let isHeld = { [.resourceTemporarilyUnavailable, .permissionDenied].contains($0 as Errno) }
        do throws(Errno) {
            try waitingOutHolders(isHeld) { () throws(Errno) in
                _ = try retryingInterrupts { clb_lock(descriptor, exclusive) }
            }
            // flock(2) knows nothing of that lock, and is what systemd and others use.
            let operation = (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB
            do throws(Errno) {
                try waitingOutHolders(isHeld) { () throws(Errno) in
                    _ = try retryingInterrupts { flock(descriptor, operation) }
                }
            } catch {
                // Not every file system has it.
                if isHeld(error) { throw error }
            }
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

    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        let aligned = alignedLength(buffer.count)
        try transfer("write", ByteRange(offset: offset, length: aligned)) { done throws(Errno) in
            try main.writeOnce(slice(buffer, done, aligned), at: offset + done)
        }
        guard aligned < buffer.count else { return }
        let tail = ByteRange(offset: offset + aligned, length: buffer.count - aligned)
        firstBuffered.min(tail.offset, ordering: .relaxed)
        try transfer("write", tail) { done throws(Errno) in
            try buffered.writeOnce(
                slice(buffer, aligned + done, buffer.count), at: tail.offset + done)
        }
    }

    /// Bytes from which on a transfer has nothing to gain from being done with others.
    private static let long = 256 << 10

    /// Does transfers together: small ones, that direct I/O can carry wholly.
    ///
    /// - Returns: for each whether it is done.
    func attempt(_ transfers: [Transfer], _ direction: Transfer.Direction) -> [Bool] {
        guard isDirect, transfers.count > 1 else { return transfers.map { _ in false } }
        let fit = transfers.map { transfer in
            let count = transfer.memory.count
            return (1..<Self.long).contains(count) && alignedLength(count) == count
                && UInt(bitPattern: transfer.memory.baseAddress) % UInt(alignment) == 0
        }
        if fit.allSatisfy(\.self) { return TransferRing.perform(transfers, direction, on: main) }
        let chosen = zip(transfers, fit).filter(\.1).map(\.0)
        var results = TransferRing.perform(chosen, direction, on: main)[...]
        return fit.map { $0 && results.popFirst() == true }
    }

    /// Writes zeros, the way that every device knows.
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
            throw IOError(
                name, "flush", error,
                advice: "What was written since the last flush may be lost; run it again.")
        }
        forgetPages()
    }

    /// Gives back what the buffered descriptor left in the page cache; clean pages only.
    private func forgetPages() {
        if isDirect {
            let first = firstBuffered.load(ordering: .relaxed)
            if first < Int.max { buffered.dropCachedPages(offset: first / 4096 * 4096) }
        } else {
            buffered.dropCachedPages()
        }
    }

    /// How many bytes of a transfer direct I/O can carry; none where it is not to be had.
    private func alignedLength(_ count: Int) -> Int {
        isDirect ? count / alignment * alignment : 0
    }

    /// Repeats a call until a whole range is transferred; pread(2) and pwrite(2) may do less.
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

    /// One mebibyte that nobody writes to: it costs address space, not memory.
    private static let zeros = AlignedBuffer(count: 1 << 20)
}

private func slice(
    _ buffer: UnsafeMutableRawBufferPointer, _ start: Int, _ end: Int
) -> UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(rebasing: buffer[start..<end])
}

private func slice(
    _ buffer: UnsafeRawBufferPointer, _ start: Int, _ end: Int
) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: buffer[start..<end])
}
