// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import Glibc
internal import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// A file of `blkferry digest`, or of `veritysetup format` with a root hash from elsewhere, whose
/// tree has been checked.
final class DigestFile: Sendable {
    let name: String
    let shape: VerityShape
    let digests: VerityDigests
    private let file: OwnedDescriptor

    /// Opens a file, and checks all of its tree.
    ///
    /// - Parameters:
    ///   - pin: the digests that it must have; `nil` for those in its last line.
    ///   - isCancelled: asked between blocks of the tree.
    /// - Throws: a refusal if it is damaged, cut off or of another kind.
    init(
        _ path: String, pin: VerityDigests?, isCancelled: () -> Bool
    ) throws(IOError) {
        name = path
        let size: Int
        do throws(Errno) {
            file = try OwnedDescriptor.open(path, flags: O_RDONLY)
            let status = try file.status()
            guard status.kind == .regular else {
                throw Errno.notSupported
            }
            size = status.size
        } catch .notSupported {
            throw .refusal(.wrongKind, path, "it is no file of blkferry digest or veritysetup")
        } catch {
            throw IOError(path, "open", error)
        }
        let start = try Self.read(file, VeritySuperblock.size, at: 0, of: path)
        guard let start else {
            throw .refusal(.wrongKind, path, "it is no file of blkferry digest or veritysetup")
        }
        let superblock: VeritySuperblock
        do throws(WireError) { superblock = try VeritySuperblock(start) } catch {
            throw .refusal(.wrongKind, path, error.reason)
        }
        // At most `Geometry.maximumSize`.
        let whole = VerityShape(size: superblock.blocks * VerityShape.block)
        if size == whole.end + VeritySeal.size {
            let bytes = try Self.read(file, VeritySeal.size, at: whole.end, of: path) ?? []
            let seal: VeritySeal
            do throws(WireError) { seal = try VeritySeal(bytes, after: start) } catch {
                throw .refusal(.damaged, path, error.reason)
            }
            guard seal.deviceSize / VerityShape.block == superblock.blocks else {
                throw .refusal(.damaged, path, "its last line is of another tree")
            }
            if let pin, pin != seal.digests { throw Self.refusal(of: path, pin, seal.digests) }
            shape = VerityShape(size: seal.deviceSize)
            digests = seal.digests
        } else {
            guard size >= whole.levels.first?.end ?? VeritySuperblock.size else {
                throw .refusal(
                    .damaged, path,
                    "it is cut off: its tree needs \(whole.end) bytes, and it has \(size)")
            }
            guard let pin, pin.tail == nil, superblock.blocks > 0 else {
                throw .refusal(
                    .damaged, path,
                    "behind its tree it has no line of blkferry digest, which would show damage",
                    advice: "If veritysetup has written it, say --root-hash.")
            }
            shape = whole
            digests = pin
        }
        try checkTree(isCancelled)
    }

    private static func refusal(
        of path: String, _ pin: VerityDigests, _ found: VerityDigests
    ) -> IOError {
        let isTailMissing = pin.root == found.root && pin.tail == nil
        return .refusal(
            .changed, path,
            isTailMissing
                ? "--root-hash does not cover the bytes behind the last whole block"
                : "its root hash is not that of --root-hash",
            advice: isTailMissing
                ? "Say ROOT:TAIL, as blkferry digest printed it." : nil)
    }

    /// `nil` if the file ends before.
    private static func read(
        _ file: borrowing OwnedDescriptor, _ count: Int, at offset: Int, of path: String
    ) throws(IOError) -> [UInt8]? {
        do throws(Errno) { return try file.array(count, at: offset) } catch {
            throw IOError(path, "read at \(offset), \(count) bytes", error)
        }
    }

    private func bytes(_ count: Int, at offset: Int) throws(IOError) -> [UInt8] {
        guard let bytes = try Self.read(file, count, at: offset, of: name) else {
            throw .refusal(.damaged, name, "it is cut off at \(offset)")
        }
        return bytes
    }

    /// Compares the digest of each block with the level above it, from the root hash down.
    private func checkTree(_ isCancelled: () -> Bool) throws(IOError) {
        // Bytes of a level at once.
        let piece = 1 << 20
        for level in shape.levels.indices.reversed() {
            var expected = digests.root
            for range in shape.levels[level].pieces(of: piece) {
                if isCancelled() {
                    var error = IOError(name, "verify", reason: "interrupted")
                    error.kind = .cancelled
                    throw error
                }
                let blocks = try bytes(range.length, at: range.offset)
                let count = range.length / VerityShape.block
                if level + 1 < shape.levels.count {
                    let first = (range.offset - shape.levels[level].offset) / VerityShape.block
                    expected = try bytes(
                        count * VerityShape.digest,
                        at: shape.place(ofDigest: first, level: level + 1))
                }
                for index in 0..<count {
                    let place = index * VerityShape.block
                    let digest = try sha256(of: Array(blocks[place..<place + VerityShape.block]))
                    let start = index * VerityShape.digest
                    guard digest.elementsEqual(expected[start..<start + VerityShape.digest]) else {
                        throw .refusal(
                            .damaged, name,
                            "its tree is damaged, or has another root hash: the block at "
                                + "\(range.offset + place) does not match")
                    }
                }
            }
        }
    }

    /// Digests of a range of the device, one for each block, the last one maybe of a part of one.
    ///
    /// - Parameters:
    ///   - range: starts with a block.
    ///   - buffer: gets them.
    func digests(
        of range: ByteRange, into buffer: UnsafeMutableRawBufferPointer
    ) throws(IOError) {
        let first = range.offset / VerityShape.block
        let whole = min(range.end, shape.tail.offset).roundedUp(to: VerityShape.block)
        let count = max(0, whole - range.offset) / VerityShape.block * VerityShape.digest
        if count > 0, shape.levels.isEmpty {
            buffer.copyBytes(from: digests.root)
        } else if count > 0 {
            let place = shape.place(ofDigest: first, level: 0)
            do throws(Errno) {
                guard try file.read(into: slice(buffer, 0, count), at: place) == count else {
                    throw Errno.ioError
                }
            } catch {
                throw IOError(name, "read at \(place), \(count) bytes", error)
            }
        }
        if range.end > shape.tail.offset, let tail = digests.tail {
            slice(buffer, count, count + VerityShape.digest).copyBytes(from: tail)
        }
    }
}
