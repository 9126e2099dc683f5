// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import LogicalVolumes
import TestSupport
import Testing

@Suite struct ReplicaRecordTests {
    static let volume = try? ScriptedLVM.volume("snap", tags: [])

    private func record(_ number: Int = 3, target: String = "aa11") throws -> ReplicaRecord {
        ReplicaRecord(
            of: try #require(Self.volume), target: target, mark: "bb22", seed: .max,
            root: String(repeating: "e", count: 64), number: number)
    }

    @Test func `a record that is written into a tag is read from it`() throws {
        let record = try record()
        #expect(ReplicaRecord(tag: record.tag) == record)
        // Source: lvm(8), "Valid characters are A-Z a-z 0-9 _ + . - / = ! : & #", up to 1024.
        #expect(
            record.tag.utf8.count < 1024
                && record.tag.allSatisfy {
                    $0.isASCII && ($0.isLetter || $0.isNumber || "_+.-/=!:&#".contains($0))
                })
    }

    @Test func `a record keeps the snapshot's mapped size, and an old record has none`() throws {
        #expect(try record().mapped == nil)
        var volume = try #require(Self.volume)
        volume.mappedWhenMade = 11 << 16
        let record = ReplicaRecord(
            of: volume, target: "aa11", mark: "bb22", seed: 1, root: "c", number: 3)
        #expect(ReplicaRecord(tag: record.tag)?.mapped == 11 << 16)
        let old = record.tag.replacingOccurrences(of: "=2/", with: "=1/")
            .replacingOccurrences(of: "/\(11 << 16)/", with: "/")
        let read = try #require(ReplicaRecord(tag: old))
        #expect(read.mapped == nil && read.isOf(volume) && read.target == "aa11")
    }

    @Test func `a tag of another kind, cut off or changed is no record`() throws {
        let tag = try record().tag
        #expect(ReplicaRecord(tag: "blkferry") == nil)
        #expect(ReplicaRecord(tag: "") == nil)
        #expect(ReplicaRecord(tag: tag + "/more") == nil)
        #expect(ReplicaRecord(tag: tag.replacingOccurrences(of: "=2/", with: "=3/")) == nil)
        #expect(ReplicaRecord(tag: tag.replacingOccurrences(of: "/3/", with: "/x/")) == nil)
        for end in tag.indices where ReplicaRecord(tag: String(tag[..<end])) != nil {
            // Cut within the last part, it is of another snapshot.
            let cut = try #require(ReplicaRecord(tag: String(tag[..<end])))
            #expect(try !cut.isOf(#require(Self.volume)))
        }
    }

    @Test func `the newest record of a target counts, and only a record of this very snapshot`()
        throws
    {
        var volume = try #require(Self.volume)
        volume.tags = [
            "blkferry", try record(9, target: "other").tag, try record(2).tag, try record(7).tag,
            try record(3).tag,
        ]
        #expect(volume.replica(on: "aa11")?.number == 7)
        #expect(volume.replica(on: "none") == nil)
        let changes: [(inout LogicalVolume) -> Void] = [
            { $0.uuid = "x" }, { $0.groupUUID = "x" }, { $0.originUUID = "x" }, { $0.thinID = 99 },
            { $0.transaction = nil }, { $0.size += 512 },
        ]
        for change in changes {
            var other = volume
            change(&other)
            #expect(other.replica(on: "aa11") == nil)
        }
    }
}
