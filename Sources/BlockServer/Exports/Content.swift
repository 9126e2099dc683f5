// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import NIOCore
internal import Synchronization
internal import WireProtocol

/// A device that is open for downloads, without locks.
final class OpenedContent: Sendable {
    let device: any BlockDevice
    /// Its anchor keeps the path valid.
    let found: ExportTable.Found
    let place: DownloadLimit.Place

    init(_ device: any BlockDevice, _ found: ExportTable.Found, _ place: DownloadLimit.Place) {
        self.device = device
        self.found = found
        self.place = place
    }
}

/// A range of a device, as the body of a response.
final class ContentSource: BodySource {
    private struct State: Sendable {
        var rest: ByteRange
        /// `nil` once the last piece is made; the client may take long to receive that.
        var device: (any BlockDevice)?
        /// Keeps the device open, or its session in use, until the last piece is made.
        var owner: (any AnyObject & Sendable)?
    }
    let length: Int
    let isChunked: Bool
    let permission: Permission
    /// Kept to the end of the response, because `permission` has a descriptor of the device's path.
    private let place: DownloadLimit.Place?
    private let state: Mutex<State>

    /// Bytes of a piece; every source of a streamed body gets memory of this length.
    static let step = 1 << 20

    init(
        _ device: any BlockDevice, _ range: ByteRange, owner: any AnyObject & Sendable,
        _ permission: Permission, isChunked: Bool = false, place: DownloadLimit.Place? = nil
    ) {
        self.permission = permission
        self.place = place
        length = range.length
        self.isChunked = isChunked
        state = Mutex(State(rest: range, device: device, owner: owner))
    }

    var isAtEnd: Bool { state.withLock { $0.rest.isEmpty } }

    func next(_ memory: UnsafeMutableRawBufferPointer) throws(Problem) -> ByteBuffer {
        let (rest, open) = state.withLock { ($0.rest, $0.device) }
        guard let device = open else { preconditionFailure("nothing is left to read") }
        let piece = ByteRange(offset: rest.offset, length: min(Self.step, rest.length))
        let bytes: ByteBuffer
        do throws(IOError) {
            bytes = ByteBuffer(bytes: try device.read(piece, staging: memory))
        } catch {
            throw Problem(error)
        }
        state.withLock { state in
            state.rest = ByteRange(piece.end, to: rest.end)
            // Before the client receives the end: its next request may need the device.
            if state.rest.isEmpty { (state.device, state.owner) = (nil, nil) }
        }
        return bytes
    }
}

extension BlockDevice {
    /// Reads a range that need not be aligned into `memory`, which is larger by at least two
    /// alignments.
    func read(
        _ range: ByteRange, staging memory: UnsafeMutableRawBufferPointer
    ) throws(IOError) -> UnsafeRawBufferPointer {
        let unit = geometry.alignment
        let start = range.offset / unit * unit
        let end = min(range.end.roundedUp(to: unit), geometry.size)
        let bytes = UnsafeMutableRawBufferPointer(rebasing: memory[..<(end - start)])
        try read(into: bytes, at: start)
        return UnsafeRawBufferPointer(slice(bytes, range.offset - start, range.end - start))
    }
}

/// Recently opened devices, kept open because clients download one range after the other.
final class ContentCache: Sendable {
    private struct Entry {
        var content: OpenedContent
        /// The name that clients see.
        var name: String
        var path: String
        var identity: DeviceIdentity?
        var size: Int
        var used: ContinuousClock.Instant
    }
    /// An entry serves one client only.
    private struct Key: Hashable {
        var name: ByteString
        var grant: Grant
    }
    private let entries = Mutex<[Key: Entry]>([:])
    private static let lifetime = Duration.seconds(5)
    private static let limit = 16
    private let downloads: DownloadLimit

    init(_ downloads: DownloadLimit) { self.downloads = downloads }

    func open(
        _ name: String, _ exports: ExportTable, _ peer: Peer, _ grant: Grant
    ) throws(Problem) -> OpenedContent {
        let key = Key(name: ByteString(name), grant: grant)
        if let known = known(key, exports) { return known }
        let found = try exports.find(name, for: grant)
        // Simultaneous requests for one device need one place, if the first has opened it meanwhile.
        if let known = known(key, exports) { return known }
        let place = try self.place(for: peer, grant)
        let device: any BlockDevice
        do throws(IOError) {
            if found.description?.isImage == true {
                device = try ImageFile(path: found.path, name: found.name, access: .read)
            } else {
                device = try BlockSpecialFile(path: found.path, name: found.name, access: .read)
            }
            try device.requireSaneSize()
        } catch {
            throw Problem(opening: error)
        }
        let content = OpenedContent(device, found, place)
        let entry = Entry(
            content: content, name: found.name, path: found.path, identity: found.identity,
            size: device.geometry.size, used: ContinuousClock().now)
        entries.withLock { entries in
            if entries.count >= Self.limit { entries.removeAll() }
            entries[key] = entry
        }
        return content
    }

    /// Makes room, if there is none, by closing the devices that wait for their client's next range.
    private func place(for peer: Peer, _ grant: Grant) throws(Problem) -> DownloadLimit.Place {
        if let place = try? downloads.take(peer, grant) { return place }
        forgetAll()
        return try downloads.take(peer, grant)
    }

    private func known(_ key: Key, _ exports: ExportTable) -> OpenedContent? {
        guard let entry = entries.withLock({ $0[key] }) else { return nil }
        let status = try? FileStatus(path: entry.path)
        let isSame =
            switch entry.identity {
            case .device(let number): status?.kind == .blockDevice && status?.device == number
            case .image(let file, _):
                status.map { FileIdentity($0) } == file && status?.size == entry.size
                    && (entry.content.found.anchor == nil || exports.leads(entry.name, to: file))
            case .newImage, nil: false
            }
        guard isSame, ContinuousClock().now - entry.used < Self.lifetime else {
            entries.withLock { $0[key] = nil }
            return nil
        }
        entries.withLock { $0[key]?.used = ContinuousClock().now }
        return entry.content
    }

    /// Closes all devices, since the exports have changed or a client is about to write.
    ///
    /// The safety gate may need proof that no process has the target open.
    func forgetAll() { entries.withLock { $0.removeAll() } }

    func forgetOld() {
        let limit = ContinuousClock().now - Self.lifetime
        entries.withLock { entries in entries = entries.filter { $0.value.used > limit } }
    }
}
