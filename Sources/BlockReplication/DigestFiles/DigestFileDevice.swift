// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import LinuxIO
internal import SyncEngine
internal import SystemPackage
internal import WireProtocol

/// A device of which only the digests are known, from a file of `blkferry digest`.
///
/// The engine compares it as it compares a device on a server, by digests of regions, which are the
/// blocks of the tree. It can neither be read nor written.
final class DigestFileDevice: RemoteDevice {
    static let layout = BlockLayout(block: VerityShape.block, region: VerityShape.block)

    private let file: DigestFile
    let digestMethod: DigestMethod
    let digestKey: DigestKey? = nil
    let requestLimit = 1 << 20
    let extentLimit = 1024

    init(_ file: DigestFile) throws(IOError) {
        self.file = file
        digestMethod = try DigestMethod(named: "sha256")
    }

    var name: String { file.name }

    var geometry: Geometry {
        Geometry(size: file.shape.size, logicalSector: 512, alignment: 1)
    }

    func openChannel() -> any RemoteChannel { DigestFileChannel(file) }

    private func unsupported(_ operation: String) -> IOError {
        IOError(name, operation, .notSupported)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        throw unsupported("read")
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        throw unsupported("write")
    }

    func write(
        _ extents: [Extent], of bytes: UnsafeRawBufferPointer?, at offset: Int
    ) throws(IOError) {
        throw unsupported("write")
    }

    func zero(_ range: ByteRange) throws(IOError) { throw unsupported("zero") }

    func flush() throws(IOError) {}

    func checkIdentity() throws(IOError) {}

    func hasForeignWrites() -> Bool { false }

    func hadOtherWriters() -> Bool { false }

    func changeCounter() -> ChangeCounter? { nil }

    func persistentChangeCounter() -> ChangeCounter? { nil }

    var reasonForNoCounter: String? { nil }
}

/// One thread's access to the file.
private final class DigestFileChannel: RemoteChannel {
    private let file: DigestFile
    private let memory: UnsafeMutableRawBufferPointer
    /// Digests of the differing blocks, where those of zeros are zeros, and a mark for each.
    private let answers: UnsafeMutableRawBufferPointer
    private let marks: UnsafeMutableRawBufferPointer
    /// The digests of zeros, by length.
    private var zeros: [Int: [UInt8]] = [:]

    private static let blocks = BlockLayout.longestWindow / VerityShape.block

    init(_ file: DigestFile) {
        self.file = file
        let size = Self.blocks * VerityShape.digest
        memory = .allocate(byteCount: size, alignment: 8)
        answers = .allocate(byteCount: size, alignment: 8)
        marks = .allocate(byteCount: Self.blocks, alignment: 8)
    }

    deinit {
        memory.deallocate()
        answers.deallocate()
        marks.deallocate()
    }

    let comparesAgain = false

    func compare(
        _ window: [ByteRange], digests: UnsafeRawBufferPointer
    ) throws(IOError) -> [RegionDifference] {
        var found: [RegionDifference] = []
        var index = 0
        for range in window {
            let first = index
            let blocks = range.pieces(of: VerityShape.block)
            try file.digests(
                of: range,
                into: slice(
                    memory, first * VerityShape.digest,
                    (first + blocks.count) * VerityShape.digest))
            for block in blocks {
                let place = index * VerityShape.digest..<(index + 1) * VerityShape.digest
                let known = UnsafeRawBufferPointer(rebasing: memory[place])
                if !known.elementsEqual(digests[place]) {
                    found.append(try difference(index, block.length, known))
                }
                index += 1
            }
        }
        return found
    }

    private func difference(
        _ index: Int, _ length: Int, _ known: UnsafeRawBufferPointer
    ) throws(IOError) -> RegionDifference {
        if zeros[length] == nil {
            zeros[length] = try sha256(of: [UInt8](repeating: 0, count: length))
        }
        let isZero = known.elementsEqual(zeros[length] ?? [])
        let answer = slice(
            answers, index * VerityShape.digest, (index + 1) * VerityShape.digest)
        if isZero {
            answer.initializeMemory(as: UInt8.self, repeating: 0)
        } else {
            answer.copyMemory(from: known)
        }
        marks[index] = isZero ? 1 : 0
        return RegionDifference(
            index: index, zeroMarks: UnsafeRawBufferPointer(slice(marks, index, index + 1)),
            digests: UnsafeRawBufferPointer(answer))
    }

    func write(
        _ extents: ArraySlice<Extent>, _ parts: [UnsafeRawBufferPointer]
    ) throws(IOError) {
        throw IOError(file.name, "write", .notSupported)
    }

    func read(_ ranges: [ByteRange]) throws(IOError) -> ExtentData {
        throw IOError(file.name, "read", .notSupported)
    }
}

/// What `verify --digest` asks of its source.
struct DigestFileEndpoint: Endpoint {
    static func open(
        _ path: String, _ options: Replication.Options, isCancelled: () -> Bool
    ) throws(IOError) -> OpenedSource {
        let device = try DigestFileDevice(
            DigestFile(path, pin: options.pinnedDigests, isCancelled: isCancelled))
        return OpenedSource(
            device: device,
            facts: SourceFacts(
                name: path, size: device.geometry.size, content: .empty, logicalSector: nil,
                identity: nil),
            warnings: [])
    }

    static func source(
        _ context: EndpointContext, block: Int?, for purpose: ReadPurpose
    ) throws(IOError) -> (OpenedSource, any Endpoint)? { nil }

    static func target(
        _ context: EndpointContext, for source: OpenedSource, _ policy: GatePolicy
    ) throws(IOError) -> (AdmittedTarget, any Endpoint)? { nil }

    func identity() -> [String] { [] }
}
