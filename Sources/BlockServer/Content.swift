// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import NIOCore
internal import Synchronization
internal import WireProtocol

/// A device that is read as it is, beside whoever has it.
final class OpenedContent: Sendable {
    let device: any BlockDevice
    fileprivate let anchor: ExportTable.Anchor?

    init(_ device: any BlockDevice, _ anchor: ExportTable.Anchor?) {
        self.device = device
        self.anchor = anchor
    }
}

/// A range of a device, on its way to a client.
final class ContentSource: BodySource {
    private struct State: Sendable {
        var rest: ByteRange
        /// Keeps the device open, or its session in use, until the last piece is made.
        var owner: (any AnyObject & Sendable)?
    }
    let length: Int
    let isChunked: Bool
    private let device: any BlockDevice
    private let state: Mutex<State>

    /// Bytes of a piece.
    static let step = 1 << 20

    /// - Parameters:
    ///   - device: to read.
    ///   - range: of it.
    ///   - owner: what it must not be read without.
    ///   - isChunked: see `BodySource`.
    init(
        _ device: any BlockDevice, _ range: ByteRange, owner: any AnyObject & Sendable,
        isChunked: Bool = false
    ) {
        self.device = device
        length = range.length
        self.isChunked = isChunked
        state = Mutex(State(rest: range, owner: owner))
    }

    var isAtEnd: Bool { state.withLock { $0.rest.isEmpty } }

    func next(_ memory: UnsafeMutableRawBufferPointer) throws(Problem) -> ByteBuffer {
        let rest = state.withLock { $0.rest }
        let piece = ByteRange(rest.offset, to: min(rest.offset + Self.step, rest.end))
        let bytes: ByteBuffer
        do throws(IOError) {
            bytes = ByteBuffer(bytes: try device.read(piece, staging: memory))
        } catch {
            throw Problem(error)
        }
        state.withLock { state in
            state.rest = ByteRange(piece.end, to: rest.end)
            // Before the client has the end: what it asks for next may need the device.
            if state.rest.isEmpty { state.owner = nil }
        }
        return bytes
    }
}

extension BlockDevice {
    /// Reads a range that need not be aligned.
    ///
    /// - Parameters:
    ///   - range: shorter than the memory by two alignments at least.
    ///   - memory: of the thread.
    /// - Returns: the bytes, in the memory.
    /// - Throws: what reading the device throws.
    func read(
        _ range: ByteRange, staging memory: UnsafeMutableRawBufferPointer
    ) throws(IOError) -> UnsafeRawBufferPointer {
        let unit = geometry.alignment
        let start = range.offset / unit * unit
        let end = min((range.end + unit - 1) / unit * unit, geometry.size)
        let bytes = UnsafeMutableRawBufferPointer(rebasing: memory[..<(end - start)])
        try read(into: bytes, at: start)
        return UnsafeRawBufferPointer(
            rebasing: bytes[(range.offset - start)..<(range.end - start)])
    }
}

/// Devices whose content was asked for a moment ago: readers ask for one range after the other.
final class ContentCache: Sendable {
    private struct Entry {
        var content: OpenedContent
        /// What the device is called.
        var name: String
        var path: String
        var identity: DeviceIdentity?
        var size: Int
        var used: ContinuousClock.Instant
    }
    /// What is one client's is no other's.
    private struct Key: Hashable {
        var name: String
        var grant: Grant
    }
    private let entries = Mutex<[Key: Entry]>([:])
    private static let lifetime = Duration.seconds(5)
    private static let limit = 16

    /// Opens what a name leads to.
    ///
    /// - Throws: 404 where it is not there, or no longer the same.
    func open(
        _ name: String, _ exports: ExportTable, _ grant: Grant
    ) throws(Problem) -> OpenedContent {
        let key = Key(name: name, grant: grant)
        if let known = known(key, exports) { return known }
        let found = try exports.find(name, for: grant)
        let device: any BlockDevice
        do throws(IOError) {
            if found.description?.isImage == true {
                device = try ImageFile(path: found.path, name: found.name, access: .read)
            } else {
                device = try BlockSpecialFile(path: found.path, name: found.name, access: .read)
            }
        } catch {
            throw Problem(error)
        }
        let content = OpenedContent(device, found.anchor)
        let entry = Entry(
            content: content, name: found.name, path: found.path, identity: found.identity,
            size: device.geometry.size, used: ContinuousClock().now)
        entries.withLock { entries in
            if entries.count >= Self.limit { entries.removeAll() }
            entries[key] = entry
        }
        return content
    }

    private func known(_ key: Key, _ exports: ExportTable) -> OpenedContent? {
        guard let entry = entries.withLock({ $0[key] }) else { return nil }
        let status = try? FileStatus(path: entry.path)
        let isSame =
            switch entry.identity {
            case .device(let number): status?.kind == .blockDevice && status?.device == number
            case .image(let file, _):
                status.map { FileIdentity($0) } == file && status?.size == entry.size
                    && (entry.content.anchor == nil || exports.leads(entry.name, to: file))
            case .newImage, nil: false
            }
        guard isSame, ContinuousClock().now - entry.used < Self.lifetime else {
            entries.withLock { $0[key] = nil }
            return nil
        }
        entries.withLock { $0[key]?.used = ContinuousClock().now }
        return entry.content
    }

    /// Forgets all, since other exports may be offered now.
    func forgetAll() { entries.withLock { $0.removeAll() } }

    func forgetOld() {
        let limit = ContinuousClock().now - Self.lifetime
        entries.withLock { entries in entries = entries.filter { $0.value.used > limit } }
    }
}
