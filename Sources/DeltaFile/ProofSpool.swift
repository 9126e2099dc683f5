// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// Bytes that are kept until the end: in memory, and then in a file without a name.
final class ProofSpool {
    private let directory: String
    private var memory: [UInt8] = []
    private var file: OwnedDescriptor?
    private var inFile = 0

    /// Bytes in memory at most.
    private static let longest = 2 << 20

    /// - Parameter directory: where the file is, if one is needed.
    init(in directory: String) { self.directory = directory }

    var count: Int { inFile + memory.count }

    func append(_ bytes: some Collection<UInt8>) throws(IOError) {
        memory.append(contentsOf: bytes)
        if memory.count >= Self.longest { try spill() }
    }

    private func spill() throws(IOError) {
        if file == nil { file = try OwnedDescriptor.unnamedFile(in: directory) }
        let bytes = memory
        memory.removeAll(keepingCapacity: true)
        let place = inFile
        let result = bytes.withUnsafeBytes { bytes in
            Result { () throws(Errno) in try file?.write(bytes, at: place) }
        }
        do throws(Errno) { try result.get() } catch {
            throw IOError(directory, "write a temporary file", error)
        }
        inFile += bytes.count
    }

    /// Calls a function with all bytes, piece by piece.
    func replay(_ body: (UnsafeRawBufferPointer) throws(IOError) -> Void) throws(IOError) {
        let buffer = AlignedBuffer(count: 1 << 20)
        var offset = 0
        while offset < inFile {
            let piece = slice(buffer.bytes, 0, min(buffer.count, inFile - offset))
            var count = 0
            do throws(Errno) { count = try file?.read(into: piece, at: offset) ?? 0 } catch {
                throw IOError(directory, "read a temporary file", error)
            }
            guard count == piece.count else {
                throw IOError(directory, "read a temporary file", reason: "it is shorter now")
            }
            try body(UnsafeRawBufferPointer(piece))
            offset += count
        }
        let rest = memory
        try rest.withUnsafeBytes { bytes in
            Result { () throws(IOError) in try body(bytes) }
        }.get()
    }
}

extension OwnedDescriptor {
    /// Creates a file without a name, which is gone when it is closed.
    static func unnamedFile(in directory: String) throws(IOError) -> OwnedDescriptor {
        let path = "\(directory)/.blkferry.\(getpid()).\(UInt32.random(in: 0 ... .max))"
        do throws(Errno) {
            let file = try OwnedDescriptor.open(
                path, flags: O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW)
            unlink(path)
            return file
        } catch {
            throw IOError(directory, "create a temporary file", error)
        }
    }
}
