// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Zstandard

/// Bytes of any text but a name; the longest label of a known file system has 765 bytes.
private let longestText = 1024

/// Bytes of a device's name: a URL whose path has 4096 bytes that are all escaped.
private let longestDeviceName = 16 << 10

private func requireShort(
    _ texts: [String?], atMost limit: Int = longestText
) throws(WireError) {
    guard texts.allSatisfy({ $0?.utf8.count ?? 0 <= limit }) else {
        throw WireError("a text has more than \(limit) bytes")
    }
}

extension SessionRequest {
    /// Bytes of a run's name; this version's clients draw 32 hexadecimal digits.
    private static let longestRun = 128

    /// Throws if a text is too long.
    ///
    /// A server keeps the request as long as the session, and the run's name longer.
    package func check() throws(WireError) {
        // Without control characters the name at most doubles as JSON.
        let bytes = (run ?? "").utf8
        let isPrintable = bytes.allSatisfy { (0x20...0x7E).contains($0) }
        guard bytes.count <= Self.longestRun, isPrintable else {
            throw WireError("run is not of at most \(Self.longestRun) printable ASCII characters")
        }
        if let zstd, !Zstd.levels.contains(zstd) { throw WireError("the level of zstd is \(zstd)") }
        guard source?.name.utf8.count ?? 0 <= longestDeviceName else {
            throw WireError("the source's name has more than \(longestDeviceName) bytes")
        }
        var texts: [String?] = [
            digest, key, sizePolicy, snapshot, taken, source?.host?.boot, continues?.host?.boot,
        ]
        for name in fasterDigests ?? [] { texts.append(name) }
        try requireShort(texts + (source?.content.signatureTexts ?? []))
    }
}

/// Lets a client reject a record that cannot answer its request.
extension SessionRecord {
    /// Numbers in a change counter; this version has fewer than ten.
    private static let longestStamp = 64
    /// Characters of a session's name; this version has 32.
    private static let longestName = 128

    package func check(against request: SessionRequest) throws(WireError) {
        try checkNow(size: request.mode == .read ? 1 : 0)
        guard !device.isEmpty else { throw WireError("the device has no name") }
        try requireShort([device], atMost: longestDeviceName)
        try requireShort([digest, snapshot, host?.boot] + content.signatureTexts)
        guard kind == "image" || kind == "block-device" else { throw WireError("kind is unknown") }
        guard logicalSector.map({ Geometry.isLogicalSector($0) }) ?? true else {
            throw WireError("the logical sector is \(logicalSector ?? 0)")
        }
        guard timeout.map({ $0 > 0 && $0 <= 1e9 }) ?? true else {
            throw WireError("the timeout is \(timeout ?? 0) s")
        }
        guard
            digest == nil || digest == request.digest
                || request.fasterDigests?.contains(digest ?? "") == true
        else { throw WireError("another digest was asked for") }
        guard zstd.map({ request.zstd != nil && Zstd.levels.contains($0) }) ?? true else {
            throw WireError("no compression of level \(zstd ?? 0) was asked for")
        }
        guard [sizeBefore, resizeTo].allSatisfy({ (0...Geometry.maximumSize).contains($0 ?? 0) })
        else { throw WireError("a size is \(sizeBefore ?? 0) or \(resizeTo ?? 0)") }
        _ = try content.content()
        try checkUnits(request)
        if let source = request.source?.size, request.mode != .read {
            try checkTarget(request, source: source)
        }
    }

    /// Whether the session's name can be part of a request's path.
    package var hasName: Bool {
        (1...Self.longestName).contains(session.utf8.count)
            && session.utf8.allSatisfy {
                (0x30...0x39).contains($0) || (0x41...0x5A).contains($0)
                    || (0x61...0x7A).contains($0)
            }
    }

    /// - Parameter least: minimum size of the device in bytes.
    package func checkNow(size least: Int = 0) throws(WireError) {
        guard hasName else { throw WireError("the session's name is invalid") }
        guard (least...Geometry.maximumSize).contains(size) else {
            throw WireError("the size is \(size)")
        }
        for stamp in [stamp, lastingStamp, stampBefore] {
            guard stamp?.count ?? 0 <= Self.longestStamp else {
                throw WireError("a change counter has \(stamp?.count ?? 0) numbers")
            }
        }
    }

    private func checkUnits(_ request: SessionRequest) throws(WireError) {
        guard (1...(1 << 20)).contains(alignment), alignment.nonzeroBitCount == 1 else {
            throw WireError("the alignment is \(alignment)")
        }
        guard block >= request.block, BlockLayout.isBlock(block), block % request.block == 0,
            block % alignment == 0
        else { throw WireError("the blocks have \(block) bytes") }
        guard region == BlockLayout(block: block).region else {
            throw WireError("the regions have \(region) bytes")
        }
    }

    /// - Parameter source: bytes of the source.
    private func checkTarget(_ request: SessionRequest, source: Int) throws(WireError) {
        let end = resizeTo ?? size
        guard size >= source, end >= source, end <= size else {
            throw WireError("the size is \(size), then \(end), and the source's \(source)")
        }
        let isImage = kind == "image"
        // A logical volume consists of extents, so it may be larger than the source.
        let isExact: Bool
        let isNewImage = isImage && created == true
        switch request.sizePolicy {
        case "prefix"?: isExact = isNewImage
        case "refuse"?: isExact = isImage || created != true
        case nil: isExact = isImage || request.create != true
        default: isExact = isImage
        }
        guard !isExact || end == source else {
            throw WireError("the target is to have \(end) bytes, the source has \(source)")
        }
        // A missing image gets the source's size with every policy.
        let isResizable =
            isNewImage || request.sizePolicy == "resize"
            || request.sizePolicy == nil && (isImage || request.create == true)
        guard resizeTo == nil || isResizable else { throw WireError("no resizing was asked for") }
        guard end == size || isImage || request.shrink == true else {
            throw WireError("no shrinking was asked for")
        }
        let before = sizeBefore ?? size
        guard resizeTo != nil || created == true || before == size else {
            throw WireError("the target had \(before) bytes, and has \(size)")
        }
    }
}

extension ExportList {
    package func check() throws(WireError) {
        for device in devices { try device.check() }
        try requireShort(directories.map { $0.path }, atMost: longestDeviceName)
    }
}

extension ExportRecord {
    /// Accepts a device that is too large to be copied, because a sparse image can have any size.
    package func check() throws(WireError) {
        guard size >= 0 else {
            throw WireError("\(path): the size is \(size)")
        }
        guard logicalSector == 0 || Geometry.isLogicalSector(logicalSector) else {
            throw WireError("\(path): the logical sector is \(logicalSector)")
        }
        guard kind == "image" || kind == "block-device" else {
            throw WireError("\(path): kind is unknown")
        }
        _ = try content.content()
        try requireShort(content.signatureTexts)
        try requireShort([id, path, unreadable, content.reason], atMost: longestDeviceName)
        try requireShort(tags, atMost: longestDeviceName)
        try requireShort(inUseBy, atMost: longestDeviceName)
    }
}
