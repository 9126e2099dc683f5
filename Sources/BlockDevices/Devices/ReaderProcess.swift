// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// Reads a file from another process, which can be given up with its memory.
///
/// No signal ends a direct read of a device that does not answer, and a program with a thread in
/// such a read cannot end. So a process of its own does it. If it is given up, it stays until the
/// device answers, holds the descriptors of the source alone, and the next read gets a new process.
/// The kernel may still write to the memory of a read that was given up, so only its process keeps
/// that memory.
final class ReaderProcess: SpotReader {
    private let file: DirectFile
    private let room: Int
    private var process: Connection?
    private var abandoned: [Connection] = []
    private var current: ByteRange?
    private var failure: IOError?
    /// Which half of the memory the current read fills.
    private var half = 0

    /// - Parameter room: bytes of a range at most.
    init(_ file: DirectFile, room: Int) {
        self.file = file
        self.room = room.roundedUp(to: AlignedBuffer.alignment)
    }

    func start(_ range: ByteRange) {
        precondition(current == nil && range.length <= room)
        current = range
        half = 1 - half
        do throws(IOError) {
            let process: Connection
            if let known = self.process { process = known } else { process = try connect() }
            self.process = process
            let direct = file.isDirect ? range.length / file.alignment * file.alignment : 0
            var request = clb_read_request(
                offset: UInt64(range.offset), length: UInt64(range.length), direct: UInt64(direct),
                place: UInt64(half * room))
            let size = MemoryLayout.size(ofValue: request)
            let sent = send(process.socket.rawValue, &request, size, Int32(MSG_NOSIGNAL))
            if sent != size { failure = ended(range) }
        } catch {
            failure = error
        }
    }

    func wait(
        until deadline: ContinuousClock.Instant?, unless isCancelled: () -> Bool
    ) -> SpotAnswer {
        guard let range = current else { preconditionFailure("no read was started") }
        current = nil
        if let failure {
            self.failure = nil
            process = nil
            return .failed(failure)
        }
        guard let process else { preconditionFailure("a started read has a process") }
        while !process.isReadable(within: Self.pollMilliseconds) {
            let isLate = deadline.map { ContinuousClock.now >= $0 } ?? false
            guard isLate || isCancelled() else { continue }
            abandoned.append(process)
            self.process = nil
            return isLate ? .late : .cancelled
        }
        var answer = clb_read_answer()
        let size = MemoryLayout.size(ofValue: answer)
        guard recv(process.socket.rawValue, &answer, size, 0) == size else {
            self.process = nil
            return .failed(ended(range))
        }
        let operation = "read at \(range)"
        if answer.error != 0 {
            return .failed(IOError(file.name, operation, Errno(rawValue: answer.error)))
        }
        guard answer.done == range.length else {
            return .failed(
                IOError(
                    file.name, operation, reason: "ended after \(answer.done) bytes",
                    advice: "The device or image is now shorter than when it was opened."))
        }
        return .bytes(slice(process.memory.bytes, half * room, half * room + range.length))
    }

    var openReads: Int {
        abandoned.removeAll { $0.isReadable(within: 0) }
        return abandoned.count
    }

    /// Short, so that a cancelled run ends soon.
    private static let pollMilliseconds: Int32 = 50

    private func connect() throws(IOError) -> Connection {
        guard let memory = SharedMemory(count: 2 * room) else {
            throw Memory.error(file.name, "read", 2 * room)
        }
        let socket = file.startReader(memory.bytes)
        guard socket >= 0 else {
            throw IOError(file.name, "start a process that reads it", currentErrno())
        }
        return Connection(socket: OwnedDescriptor(owning: socket), memory: memory)
    }

    private func ended(_ range: ByteRange) -> IOError {
        IOError(
            file.name, "read at \(range)", reason: "the process that reads it has ended",
            advice: "It may have been killed, or the machine has no memory left.")
    }

    /// A process, which ends when the socket is closed and its read is done.
    private final class Connection {
        let socket: OwnedDescriptor
        let memory: SharedMemory

        init(socket: consuming OwnedDescriptor, memory: SharedMemory) {
            self.socket = socket
            self.memory = memory
        }

        /// Whether the process has answered or ended.
        func isReadable(within milliseconds: Int32) -> Bool {
            var polled = pollfd(fd: socket.rawValue, events: Int16(POLLIN), revents: 0)
            return poll(&polled, 1, milliseconds) > 0
        }
    }
}

/// Memory that this process and those that it forks share.
private final class SharedMemory {
    let bytes: UnsafeMutableRawBufferPointer

    /// `nil` if there is none.
    init?(count: Int) {
        guard
            let memory = mmap(
                nil, count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
            memory != MAP_FAILED
        else { return nil }
        bytes = UnsafeMutableRawBufferPointer(start: memory, count: count)
    }

    deinit { munmap(bytes.baseAddress, bytes.count) }
}
