// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import LinuxIO
internal import SystemPackage

/// The bytes of a delta, at any place.
package protocol DeltaBytes: Sendable {
    var count: Int { get }

    /// Fills the buffer; what lies behind the end is an error.
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError)

    /// Throws if the bytes may have changed since they were opened.
    func checkUnchanged() throws(IOError)
}

/// A file with a delta.
package final class DeltaFileBytes: DeltaBytes {
    package let count: Int
    private let name: String
    private let file: OwnedDescriptor
    private let status: FileStatus

    package init(_ path: String) throws(IOError) {
        do throws(Errno) {
            let file = try OwnedDescriptor.open(path, flags: O_RDONLY | O_NONBLOCK)
            status = try file.status()
            self.file = consume file
        } catch {
            throw IOError(path, "open", error)
        }
        guard status.kind == .regular else {
            throw .refusal(.wrongKind, path, "it is no regular file")
        }
        name = path
        count = status.size
    }

    /// Takes everything from a pipe into a file without a name first.
    ///
    /// - Parameter directory: where that file is.
    package init(
        keeping descriptor: Int32, name: String, in directory: String,
        unless isCancelled: () -> Bool
    ) throws(IOError) {
        let file = try OwnedDescriptor.unnamedFile(in: directory)
        let buffer = AlignedBuffer(count: 1 << 20)
        var length = 0
        while true {
            if isCancelled() {
                var error = IOError(name, "read", reason: "interrupted, nothing was written")
                error.kind = .cancelled
                throw error
            }
            var received = 0
            do throws(Errno) {
                received = try Self.receive(descriptor, buffer.bytes)
            } catch .timedOut {
                continue
            } catch {
                throw IOError(name, "read", error)
            }
            if received == 0 { break }
            do throws(Errno) {
                try file.write(UnsafeRawBufferPointer(slice(buffer.bytes, 0, received)), at: length)
            } catch {
                throw IOError(
                    directory, "write a temporary file", error,
                    advice: "--spool DIRECTORY names a place with more room.")
            }
            length += received
        }
        do throws(Errno) { status = try file.status() } catch {
            throw IOError(directory, "get status", error)
        }
        self.file = consume file
        self.name = name
        count = length
    }

    /// Waits for bytes, but not longer than a moment, so that a signal ends the wait.
    private static func receive(
        _ descriptor: Int32, _ buffer: UnsafeMutableRawBufferPointer
    ) throws(Errno) -> Int {
        var polled = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        if try retryingInterrupts({ poll(&polled, 1, 200) }) == 0 { throw Errno.timedOut }
        do throws(Errno) {
            return try retryingInterrupts {
                Glibc.read(descriptor, buffer.baseAddress, buffer.count)
            }
        } catch .resourceTemporarilyUnavailable {
            throw Errno.timedOut
        }
    }

    package var fileStatus: FileStatus { status }

    package func read(
        into buffer: UnsafeMutableRawBufferPointer, at offset: Int
    ) throws(IOError) {
        var done = 0
        do throws(Errno) { done = try file.read(into: buffer, at: offset) } catch {
            throw IOError(name, "read at \(offset)", error)
        }
        guard done == buffer.count else {
            throw IOError(name, "read at \(offset)", reason: "it is shorter than before")
        }
    }

    package func checkUnchanged() throws(IOError) {
        let now: FileStatus
        do throws(Errno) { now = try file.status() } catch {
            throw IOError(name, "get status", error)
        }
        guard now.size == status.size, now.modified == status.modified else {
            throw IOError(
                name, "read", reason: "another program has changed it during the run",
                advice: "What is on the target is not proven; roll it back, or copy it anew.")
        }
    }
}

/// Reads bytes one after the other, through a buffer.
///
/// It is safe to send, because one thread at a time uses it.
final class ByteCursor: @unchecked Sendable {
    private let bytes: any DeltaBytes
    private let name: String
    private let end: Int
    private let buffer = AlignedBuffer(count: 64 << 10)
    private var buffered = 0..<0
    private(set) var position: Int

    init(_ bytes: any DeltaBytes, name: String, from start: Int, to end: Int) {
        self.bytes = bytes
        self.name = name
        self.end = end
        position = start
    }

    var rest: Int { end - position }

    /// - Throws: a refusal if there are fewer bytes.
    func take(_ count: Int) throws(IOError) -> [UInt8] {
        guard count <= rest else { throw .damagedDelta(name, "it ends too early") }
        var taken: [UInt8] = []
        taken.reserveCapacity(count)
        while taken.count < count {
            if !buffered.contains(position) {
                let length = min(buffer.count, rest)
                try bytes.read(into: slice(buffer.bytes, 0, length), at: position)
                buffered = position..<position + length
            }
            let start = position - buffered.lowerBound
            let length = min(count - taken.count, buffered.upperBound - position)
            taken.append(contentsOf: slice(buffer.bytes, start, start + length))
            position += length
        }
        return taken
    }

    func takeNumber() throws(IOError) -> Int {
        let bytes = try take(8)
        let number = bytes.withUnsafeBytes {
            UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self))
        }
        guard let number = Int(exactly: number) else {
            throw .damagedDelta(name, "a number in it is too large")
        }
        return number
    }

    func takeWord() throws(IOError) -> Int {
        let bytes = try take(4)
        return Int(
            bytes.withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(as: UInt32.self)) })
    }

    func skip(_ count: Int) throws(IOError) {
        guard count <= rest else { throw .damagedDelta(name, "it ends too early") }
        position += count
    }
}

extension IOError {
    static func damagedDelta(_ name: String, _ reason: String) -> IOError {
        .refusal(
            .damaged, name, "it is truncated or damaged: \(reason)",
            advice: "Make the delta again, or copy it again.")
    }
}
