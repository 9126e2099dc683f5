// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import Testing
import WireProtocol

/// What a client believes of a server's record of a session.
@Suite struct RecordCheckTests {
    private static let source = 1 << 20

    private func request(
        _ mode: SessionRequest.Mode = .write, _ change: (inout SessionRequest) -> Void = { _ in }
    ) -> SessionRequest {
        var request = SessionRequest(mode: mode, block: 4096, digest: "sha256", key: nil)
        request.source = SourceRecord(
            SourceFacts(
                name: "source", size: Self.source, content: .empty, logicalSector: nil,
                identity: nil), boot: nil)
        change(&request)
        return request
    }

    private func record(
        kind: String = "image", size: Int = source,
        _ change: (inout SessionRecord) -> Void = { _ in }
    ) throws -> SessionRecord {
        var record = SessionRecord(
            session: "0123456789abcdef", device: "NAME=x", size: size, logicalSector: nil,
            alignment: 512, layout: BlockLayout(),
            content: ContentRecord(.empty), kind: kind, rotational: false, warnings: [])
        change(&record)
        return record
    }

    /// A target in a server's answer, and the client's request.
    struct Target: CustomTestStringConvertible, Sendable {
        var name: String
        var isTrue: Bool
        var kind = "image"
        var size = source
        var resizeTo: Int?
        var sizeBefore: Int?
        var created: Bool?
        var policy: String?
        var shrink: Bool?
        var create: Bool?
        var testDescription: String { name }
    }

    private static let larger = source + 4096

    /// A missing image gets the source's size with every policy.
    static let newImages = ([nil, "resize", "refuse", "prefix"] as [String?]).flatMap {
        policy -> [Target] in
        let name = "a new image, \(policy ?? "without a policy")"
        return [
            Target(
                name: name, isTrue: true, resizeTo: source, sizeBefore: 0, created: true,
                policy: policy),
            Target(
                name: "\(name), that is larger", isTrue: false, size: larger, resizeTo: larger,
                sizeBefore: 0, created: true, policy: policy),
            Target(
                name: "\(name), that is cut", isTrue: false, size: larger, resizeTo: source - 1,
                sizeBefore: 0, created: true, policy: policy),
        ]
    }

    static let targets = [
        Target(name: "an image of the size", isTrue: true, sizeBefore: source),
        Target(name: "an image that has grown", isTrue: true, resizeTo: source, sizeBefore: 512),
        Target(
            name: "an image that is cut at the end", isTrue: true, size: larger, resizeTo: source,
            sizeBefore: larger),
        Target(name: "smaller than the source", isTrue: false, size: source - 1),
        Target(name: "nothing", isTrue: false, size: 0),
        Target(name: "cut to less", isTrue: false, resizeTo: 0, sizeBefore: source),
        Target(name: "cut to a byte less", isTrue: false, size: larger, resizeTo: source - 1),
        Target(name: "grown to more", isTrue: false, size: larger, resizeTo: larger, sizeBefore: 0),
        Target(name: "not grown yet", isTrue: false, resizeTo: larger, sizeBefore: source),
        Target(name: "larger, and it stays", isTrue: false, size: larger),
        Target(name: "larger, as was asked for", isTrue: true, size: larger, policy: "prefix"),
        Target(
            name: "cut where the rest was to stay", isTrue: false, size: larger, resizeTo: source,
            policy: "prefix"),
        Target(
            name: "cut where nothing was to be", isTrue: false, size: larger, resizeTo: source,
            policy: "refuse"),
        Target(
            name: "grown where nothing was to be", isTrue: false, resizeTo: source, sizeBefore: 512,
            policy: "refuse"),
        Target(
            name: "grown where the rest was to stay", isTrue: false, resizeTo: source,
            sizeBefore: 512, policy: "prefix"),
        Target(name: "had another size", isTrue: false, sizeBefore: 4096),
        Target(name: "had less than nothing", isTrue: false, resizeTo: source, sizeBefore: -1),
        Target(name: "a disk", isTrue: true, kind: "block-device", sizeBefore: source),
        Target(name: "a larger disk", isTrue: false, kind: "block-device", size: larger),
        Target(
            name: "a disk that shrinks", isTrue: false, kind: "block-device", size: larger,
            resizeTo: source),
        Target(
            name: "a volume that was made", isTrue: true, kind: "block-device", size: larger,
            sizeBefore: 0, created: true, create: true),
        Target(
            name: "a volume that has grown", isTrue: true, kind: "block-device", size: larger,
            resizeTo: larger, sizeBefore: 512, policy: "resize"),
        Target(
            name: "a volume that may shrink", isTrue: true, kind: "block-device", size: 2 * larger,
            resizeTo: larger, sizeBefore: 2 * larger, policy: "resize", shrink: true),
        Target(
            name: "a volume that may not", isTrue: false, kind: "block-device", size: 2 * larger,
            resizeTo: larger, sizeBefore: 2 * larger, policy: "resize"),
    ]

    @Test(arguments: [SessionRequest.Mode.write, .dryRun], targets + newImages)
    func `a target has the sizes of the request`(
        mode: SessionRequest.Mode, target: Target
    ) throws {
        let record = try record(kind: target.kind, size: target.size) {
            $0.resizeTo = target.resizeTo
            $0.sizeBefore = target.sizeBefore
            $0.created = target.created
        }
        let request = request(mode) {
            $0.sizePolicy = target.policy
            $0.shrink = target.shrink
            $0.create = target.create
        }
        if target.isTrue {
            try record.check(against: request)
        } else {
            #expect(throws: WireError.self) { try record.check(against: request) }
        }
    }

    @Test func `a source has a size, which may be any`() throws {
        for size in [1, 511, Self.source, Geometry.maximumSize] {
            try record(size: size).check(against: request(.read))
        }
        for size in [0, -1, Int.min, Geometry.maximumSize + 1, Int.max] {
            let record = try record(size: size)
            #expect(throws: WireError.self) { try record.check(against: request(.read)) }
        }
        // An image may be cut while it is read, which another check tells.
        try record(size: 0).checkNow()
    }

    @Test func `blocks have the requested size, or a multiple`() throws {
        var asked = request(.read)
        asked.block = 12288
        for (block, region, isTrue) in [
            (12288, 98304, true), (24576, 98304, true), (4096, 65536, false),
            (12288, 49152, false), (12288, 196608, false), (12288, 0, false), (0, 0, false),
            (-12288, 98304, false), (16384, 65536, false), (12288 << 40, 12288 << 40, false),
        ] {
            let record = try record {
                $0.block = block
                $0.region = region
            }
            if isTrue {
                try record.check(against: asked)
            } else {
                #expect(throws: WireError.self, "\(block)") { try record.check(against: asked) }
            }
        }
    }

    @Test func `an export without a possible size and sector size is refused`() throws {
        func export(_ size: Int, _ sector: Int, kind: String = "image") -> ExportRecord {
            ExportRecord(
                id: "NAME=x", tags: [], path: "/x", kind: kind, size: size, logicalSector: sector,
                access: .readOnly, content: ContentRecord(.empty), inUseBy: [], unreadable: nil)
        }
        try export(0, 512).check()
        try export(Geometry.maximumSize, 4096, kind: "block-device").check()
        // Too large to be copied, and no reason not to list the others.
        try export(Int.max, 512).check()
        for record in [
            export(-1, 512), export(Int.min, 512), export(1, -512), export(1, 513),
            export(1, Int.max), export(1, Int.min), export(1, 512, kind: "x"),
        ] {
            #expect(throws: WireError.self) { try record.check() }
        }
    }
}
