// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import LinuxIO
internal import SystemPackage

/// The client of the kernel's device mapper (linux/dm-ioctl.h).
package struct DeviceMapper: Sendable {
    package enum Question: String, Sendable {
        case table
        case status
    }

    /// The directory of the control file and of the devices.
    package let directory: String
    /// The function for ioctl(2); tests replace the kernel with another one.
    ///
    /// `table(of:)` always asks the kernel.
    package var call: @Sendable @convention(c) (Int32, UInt, UnsafeMutableRawPointer?) -> Int32 =
        clb_ioctl

    package init(directory: String = "/dev/mapper") { self.directory = directory }

    private var control: String { "\(directory)/control" }

    /// Bytes; most answers are shorter.
    private static let usualSize = 16 << 10
    /// Bytes; longer answers are not read, and the helper gives none.
    private static let limit = 256 << 10

    /// Reads the table of the device with an `st_rdev`; `nil` for other devices, and without
    /// permission.
    package func table(of number: UInt64) -> MapperTable? {
        try? ask(.table) { control, memory, count in
            PrivilegedCalls.getMapperTable(control, of: number, into: memory, count: &count)
        }
    }

    /// Reads the table or the status of the device with a name.
    ///
    /// - Throws: also if there is no such device, or it has no table.
    package func answer(_ question: Question, of name: String) throws(IOError) -> MapperTable {
        try ask(question) { control, memory, count in
            clb_ask_mapper(
                call, control, name, 0, question == .table, memory.baseAddress,
                UInt32(memory.count), &count)
        }
    }

    private func ask(
        _ question: Question,
        _ body: (Int32, UnsafeMutableRawBufferPointer, inout UInt32) -> Int32
    ) throws(IOError) -> MapperTable {
        let file: OwnedDescriptor
        do throws(Errno) { file = try OwnedDescriptor.open(control, flags: O_RDWR) } catch {
            throw IOError(control, "open", error)
        }
        let descriptor = file.rawValue
        var size = Self.usualSize
        while true {
            let memory = AlignedBuffer(count: size)
            var count: UInt32 = 0
            do throws(Errno) {
                _ = try retryingInterrupts { body(descriptor, memory.bytes, &count) }
            } catch {
                guard error == .messageTooLong && size < Self.limit else {
                    throw IOError(control, question.rawValue, error)
                }
                size = Self.limit
                continue
            }
            let answer = UnsafeRawBufferPointer(rebasing: memory.bytes[clb_mapper_answer_start...])
            guard let table = MapperTable(answer, count: Int(count)) else {
                throw IOError(control, question.rawValue, reason: "it cannot be parsed")
            }
            return table
        }
    }

    /// Sends a message to a device, and records the result in a file.
    ///
    /// A process of its own does both, with the file open. The process finishes even if this one is
    /// killed in between, also by a signal to all processes of its service. It keeps the file's
    /// lock (flock(2)) until then.
    ///
    /// - Parameters:
    ///   - undo: the message that the process sends if it cannot record. `nil` records nothing,
    ///     which empties the file.
    ///   - file: open for writing; an empty file if the process records the device's status there.
    /// - Throws: if the kernel refuses the message, which leaves the file as it was, or if the
    ///   process cannot record.
    package func send(
        _ message: String, to name: String, orElse undo: String?, recordIn file: Int32
    ) throws(IOError) {
        guard clb_tell_mapper(call, control, name, message, undo, file) == 0 else {
            throw IOError(control, "message \(message)", Errno(rawValue: errno))
        }
    }
}
