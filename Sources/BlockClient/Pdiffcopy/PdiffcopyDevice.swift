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
/// The device requests the digests on first use, and again after a flush.
package final class PdiffcopyDevice: RemoteDevice {
    /// pdiffcopy's default block size in bytes.
    package static let defaultBlock = 1 << 20

    package let name: String
    package let digestMethod: DigestMethod
    package let digestKey: DigestKey? = nil
    /// Bytes; the engine's unit of comparison.
    let block: Int
    let server: PdiffcopyServer
    private let concurrency: Int?

    struct State {
        /// Bytes that the engine sees; in a dry run, the size that the file would get.
        var size: Int
        /// Bytes of the file on the server.
        var fileSize: Int
        /// The offset from which the file has only zeros.
        var dataEnd: Int
        var table: DigestTable?
    }
    private let state: Mutex<State>

    /// - Parameters:
    ///   - size: bytes of the file; 0 if it does not exist.
    ///   - seenAs: bytes that it would get in a dry run; `nil` for `size`.
    ///   - method: `nil` for pdiffcopy's default, SHA-1.
    /// - Throws: for a digest that a pdiffcopy server may lack.
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
        guard let wanted else { return try DigestMethod(named: "sha1") }
        guard PdiffcopyServer.hashlibNames[wanted.name] != nil else {
            let names = PdiffcopyServer.hashlibNames.keys.sorted().joined(separator: ", ")
            throw .network(
                name, "open", reason: "a pdiffcopy server may lack the digest \(wanted.name)",
                advice: "Both sides have \(names).")
        }
        return wanted
    }

    package func fitting(_ alignment: Int) -> any BlockDevice {
        PdiffcopyDevice(self, block: leastCommonMultiple(block, alignment))
    }

    package var preferredBlock: Int? { block }

    /// Only whole blocks can be checked against the server's digests.
    package var requestLimit: Int { max(Limits.payload, block) }

    package var extentLimit: Int { Limits.extents }

    package var traffic: (sent: Int, received: Int)? { server.transport.traffic }

    /// pdiffcopy has no request to flush.
    package var isFlushable: Bool { false }

    package var geometry: Geometry {
        Geometry(size: state.withLock { $0.size }, logicalSector: 512, alignment: 1)
    }

    var fileSize: Int { state.withLock { $0.fileSize } }

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

    var knownTable: DigestTable? { state.withLock { $0.table } }

    /// A closure that returns whether a request may have to wait for the digests; the server has
    /// few processes for all requests, possibly only one.
    var mayWait: () -> Bool {
        let table = state.withLock { $0.table }
        return { table?.isLoading ?? false }
    }
}

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
            slice(buffer, done, done + range.length).copyMemory(from: body.bytes)
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

    private static let zeros = AlignedBuffer(count: Limits.payload)

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

    /// Discards the digests, because the run may have changed the file since; pdiffcopy has no
    /// request to flush.
    package func flush() throws(IOError) {
        state.withLock { state in
            state.table?.drop()
            (state.table, state.dataEnd) = (nil, state.size)
        }
    }

    package func checkIdentity() throws(IOError) {
        // The rest of the answer may be invalid, even if the digests that the run used were valid.
        if let error = knownTable?.contradiction() { throw error }
        let (now, before) = (try server.size() ?? 0, fileSize)
        guard now != before else { return }
        throw IOError(
            name, "read",
            reason: "its size has changed from \(before) to \(now) bytes during the run")
    }

    // pdiffcopy's protocol does not report other programs.
    package func hasForeignWrites() -> Bool { false }
    package func hadOtherWriters() -> Bool { false }
    package func changeCounter() -> ChangeCounter? { nil }
    package func persistentChangeCounter() -> ChangeCounter? { nil }
    package var reasonForNoCounter: String? { nil }
}
