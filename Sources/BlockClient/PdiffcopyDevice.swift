// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import Digests
package import LinuxIO
package import SyncEngine
internal import Synchronization
internal import WireProtocol

/// A file of a pdiffcopy server.
///
/// Its digests are asked for when they are first needed, and anew after a flush.
package final class PdiffcopyDevice: RemoteDevice {
    /// Bytes of a block where the user has no wish, as with pdiffcopy.
    package static let defaultBlock = 1 << 20

    package let name: String
    package let digestMethod: DigestMethod
    package let digestKey: DigestKey? = nil
    /// Bytes; what the engine is to compare it by.
    let block: Int
    let server: PdiffcopyServer
    private let concurrency: Int?

    struct State {
        /// Bytes, as the engine is to see it: in a dry run, what it would become.
        var size: Int
        /// Bytes that the file has over there.
        var fileSize: Int
        /// From here on there are but zeros.
        var dataEnd: Int
        var table: DigestTable?
    }
    private let state: Mutex<State>

    /// Looks at a file.
    ///
    /// - Parameters:
    ///   - server: where.
    ///   - size: bytes that the file has; 0 where it is missing.
    ///   - seenAs: bytes that it would get in a dry run; `nil` for those that it has.
    ///   - block: what it is compared by, in bytes.
    ///   - method: the digest; `nil` for that of pdiffcopy.
    ///   - concurrency: processes of the server that hash; `nil` for as many as it likes.
    /// - Throws: for a digest that pdiffcopy cannot be relied on to have.
    init(
        _ server: PdiffcopyServer, size: Int, seenAs: Int? = nil, block: Int,
        method: DigestMethod?, concurrency: Int?
    ) throws(IOError) {
        self.server = server
        name = server.name
        digestMethod = try Self.method(method, name)
        self.block = block
        self.concurrency = concurrency
        state = Mutex(State(size: seenAs ?? size, fileSize: size, dataEnd: size))
    }

    private init(_ other: PdiffcopyDevice, block: Int) {
        server = other.server
        name = other.name
        digestMethod = other.digestMethod
        concurrency = other.concurrency
        self.block = block
        state = Mutex(other.state.withLock { $0 })
    }

    deinit { state.withLock { $0.table?.drop() } }

    private static func method(
        _ wanted: DigestMethod?, _ name: String
    ) throws(IOError) -> DigestMethod {
        guard let wanted else {
            do throws(DigestError) { return try DigestMethod(named: "sha1") } catch {
                throw IOError(name, error.operation, reason: error.reason)
            }
        }
        guard PdiffcopyServer.hashlibNames[wanted.name] != nil else {
            let names = PdiffcopyServer.hashlibNames.keys.sorted().joined(separator: ", ")
            throw .network(
                name, "open", reason: "a pdiffcopy server need not have the digest \(wanted.name)",
                advice: "Both sides have \(names).")
        }
        return wanted
    }

    /// The same with blocks that another device can transfer.
    ///
    /// - Parameter alignment: the other device's, in bytes.
    /// - Returns: another view of the same file.
    package func fitting(_ alignment: Int) -> PdiffcopyDevice {
        PdiffcopyDevice(self, block: leastCommonMultiple(block, alignment))
    }

    package var preferredBlock: Int? { block }

    package var traffic: (sent: Int, received: Int) { server.transport.traffic }

    /// There is no such request.
    package var isFlushable: Bool { false }

    package var geometry: Geometry {
        Geometry(size: state.withLock { $0.size }, logicalSector: 512, alignment: 1)
    }

    /// Bytes that the file has over there.
    var fileSize: Int { state.withLock { $0.fileSize } }

    /// All digests of the file, as they come.
    var table: DigestTable {
        get throws(IOError) {
            try state.withLock { state throws(IOError) in
                if let table = state.table { return table }
                let count = DigestLines.count(size: state.fileSize, block: block)
                guard count <= DigestLines.memoryLimit / digestMethod.byteCount else {
                    throw IOError(
                        name, "compare",
                        reason: "digests of \(count) blocks would take too much memory",
                        advice: "-b SIZE makes the blocks larger.")
                }
                let table = DigestTable(
                    server, size: state.fileSize, block: block, method: digestMethod,
                    concurrency: concurrency)
                state.table = table
                return table
            }
        }
    }

    /// The digests, where they have been asked for.
    var knownTable: DigestTable? { state.withLock { $0.table } }

    /// Says as long as it is asked that a request may wait for the digests: the server has a few
    /// processes for all requests, and perhaps only one.
    var mayWait: () -> Bool {
        let table = state.withLock { $0.table }
        return { table?.isLoading ?? false }
    }
}

/// The file as any other device.
extension PdiffcopyDevice {
    package func openChannel() -> any RemoteChannel { PdiffcopyChannel(self) }

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        let there = max(0, min(buffer.count, fileSize - offset))
        let body = ResponseBody(limit: Limits.payload)
        var done = 0
        while done < there {
            let range = ByteRange(
                offset: offset + done, length: min(there - done, Limits.payload))
            try server.read(range, into: body, mayWait: mayWait)
            UnsafeMutableRawBufferPointer(rebasing: buffer[done..<done + range.length])
                .copyMemory(from: body.bytes)
            done += range.length
        }
        UnsafeMutableRawBufferPointer(rebasing: buffer[there...])
            .initializeMemory(as: UInt8.self, repeating: 0)
    }

    package func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        var done = 0
        while done < buffer.count {
            let end = min(done + Limits.payload, buffer.count)
            try server.write(
                [UnsafeRawBufferPointer(rebasing: buffer[done..<end])], at: offset + done,
                mayWait: mayWait)
            done = end
        }
    }

    package func zero(_ range: ByteRange) throws(IOError) {
        var offset = range.offset
        while offset < range.end {
            let length = min(range.end - offset, Self.zeros.count)
            try write(UnsafeRawBufferPointer(rebasing: Self.zeros.bytes[..<length]), at: offset)
            offset += length
        }
    }

    private static let zeros = Zeros()

    package func write(
        _ extents: [Extent], of bytes: UnsafeRawBufferPointer?, at offset: Int
    ) throws(IOError) {
        for extent in extents {
            guard extent.kind == .data else {
                try zero(extent.range)
                continue
            }
            guard let bytes else { preconditionFailure("data without bytes") }
            let start = extent.range.offset - offset
            let part = bytes[start..<start + extent.range.length]
            try write(UnsafeRawBufferPointer(rebasing: part), at: extent.range.offset)
        }
    }

    package func nextData(from offset: Int) throws(IOError) -> ByteRange? {
        let end = state.withLock { min($0.dataEnd, $0.size) }
        return offset < end ? ByteRange(offset, to: end) : nil
    }

    package func resize(to size: Int) throws(IOError) {
        try server.resize(to: size)
        state.withLock { state in
            state.table?.drop()
            state.dataEnd = min(state.dataEnd, size)
            (state.table, state.size, state.fileSize) = (nil, size, size)
        }
    }

    /// Nothing can be asked for; but what is known of the file is of the time before.
    package func flush() throws(IOError) {
        state.withLock { state in
            state.table?.drop()
            (state.table, state.dataEnd) = (nil, state.size)
        }
    }

    package func checkSize() throws(IOError) {
        // What was enough to go by may have been followed by what cannot be.
        if let error = knownTable?.contradiction() { throw error }
        let (now, before) = (try server.size() ?? 0, fileSize)
        guard now != before else { return }
        throw IOError(
            name, "read", reason: "its size has changed from \(before) to \(now) bytes meanwhile")
    }
}

/// Zeros to send.
private struct Zeros: @unchecked Sendable {
    let count = Limits.payload
    /// Never written after it was made, and never freed.
    let bytes: UnsafeRawBufferPointer

    init() {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 0)
        bytes = UnsafeRawBufferPointer(memory)
    }
}

/// The smallest number that both divide.
private func leastCommonMultiple(_ first: Int, _ second: Int) -> Int {
    var (a, b) = (first, second)
    while b != 0 { (a, b) = (b, a % b) }
    return first / a * second
}
