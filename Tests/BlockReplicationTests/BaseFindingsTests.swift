// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import BlockReplication
import Foundation
import LogicalVolumes
import TestSupport
import Testing

/// Whether a run may leave most of its target unread.
@Suite struct BaseFindingsTests {
    /// What a run that may read only the changes has found, with one thing that is different.
    struct Row: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let expected: Expected
        let change: @Sendable (inout Facts) -> Void

        init(
            _ name: String, _ expected: Expected,
            _ change: @escaping @Sendable (inout Facts) -> Void
        ) {
            testDescription = name
            self.expected = expected
            self.change = change
        }
    }

    enum Expected: Hashable, Sendable {
        case reads([ByteRange])
        case compares(FallbackReason)
        case finds(String)
    }

    /// The findings, before they are put together.
    struct Facts: Sendable {
        var source = volume("root.new", attributes: "Vri-a-tz--")
        var sourceSize = 1 << 30
        var base: LogicalVolume? = volume("root.old")
        /// As the record was made; afterwards the base may change.
        var record = ReplicaRecord(
            of: volume("root.old"), target: "aa", mark: "m1", seed: 7, root: "beef", number: 3)
        var identity = "aa"
        var more: [ReplicaRecord] = []
        var isRecorded = true
        var counter: BaseFindings.Counter? = .value(TargetMark(text: "m1", equivalents: ["m1"]))
        var changes: ChangeMap? = ChangeMap(
            [ByteRange(offset: 4096, length: 8192)], size: 1 << 30, oldSize: 1 << 30)
        var sampleDigest: String? = "beef"
        var differences: [Range<Int>]? = []
        var counterAtEnd: BaseFindings.Counter? = .value(
            TargetMark(text: "m1", equivalents: ["m1"]))
        var failure: FallbackReason?

        var findings: BaseFindings {
            var base = base
            base?.tags = (isRecorded ? [record.tag] : []) + more.map(\.tag)
            var findings = BaseFindings(
                target: "/dev/replica", identity: identity, source: source,
                sourceSize: sourceSize, base: base)
            findings.counter = counter
            findings.changes = changes
            findings.sampleDigest = sampleDigest
            findings.differences = differences
            findings.counterAtEnd = counterAtEnd
            findings.failure = failure
            return findings
        }
    }

    private static let changed = [ByteRange(offset: 4096, length: 8192)]
    private static let other = BaseFindings.Counter.value(
        TargetMark(text: "m2", equivalents: ["m2"]))

    static let rows = [
        Row("all is as the last run left it", .reads(changed)) { _ in },
        Row("the source is writable and no program has it open", .reads(changed)) {
            $0.source = volume("root.new", attributes: "Vwi-a-tz--")
        },
        Row("the source is read-only and open", .reads(changed)) {
            $0.source = volume("root.new", attributes: "Vri-aotz--")
        },
        Row("nothing has changed", .reads([])) {
            $0.changes = ChangeMap([], size: 1 << 30, oldSize: 1 << 30)
        },
        Row("the counter has another text for the same state", .reads(changed)) {
            $0.counter = .value(TargetMark(text: "m2", equivalents: ["m1", "m2"]))
        },
        Row("a later record of the target agrees, an earlier one does not", .reads(changed)) {
            $0.more = [$0.record]
            $0.more[0].number = 2
            $0.more[0].mark = "m0"
        },
        Row("the base has a record of another target as well", .reads(changed)) {
            $0.more = [$0.record]
            $0.more[0].target = "bb"
            $0.more[0].number = 9
            $0.more[0].mark = "m0"
        },
        Row("no run has left a base", .compares(.noEarlierRun)) { $0.base = nil },
        Row("the base has no record", .compares(.unknownReplica)) { $0.isRecorded = false },
        Row("the record is that of another target", .compares(.unknownReplica)) {
            $0.identity = "bb"
        },
        Row("the base was cloned with its tags", .compares(.unknownReplica)) {
            $0.base?.uuid = "another"
        },
        Row("the volume group was restored from its backup", .compares(.unknownReplica)) {
            $0.base?.groupUUID = "another"
        },
        Row("the base has become a snapshot of another volume", .compares(.unknownReplica)) {
            $0.base?.originUUID = "another"
        },
        Row("the pool has given the base's id to another volume", .compares(.unknownReplica)) {
            $0.base?.thinID = 99
        },
        Row("the base was made again in a later transaction", .compares(.unknownReplica)) {
            $0.base?.transaction = 99
        },
        Row("the base was extended", .compares(.unknownReplica)) { $0.base?.size = 2 << 30 },
        Row("a program has the writable source open", .compares(.sourceInUse)) {
            $0.source = volume("root.new", attributes: "Vwi-aotz--")
        },
        Row("LVM's attributes are cut short", .reads(changed)) {
            $0.source = volume("root.new", attributes: "V")
        },
        Row("the target has no counter", .compares(.noCounter(nil))) {
            $0.counter = .missing(reason: nil)
        },
        Row("the target has no counter for a known reason", .compares(.noCounter("RAID"))) {
            $0.counter = .missing(reason: "RAID")
        },
        Row("another program wrote to the target", .compares(.written)) { $0.counter = other },
        Row("a later record says that the target was written to", .compares(.written)) {
            $0.more = [$0.record]
            $0.more[0].number = 4
            $0.more[0].mark = "m0"
        },
        Row("the source was extended", .compares(.resized)) {
            $0.changes = ChangeMap([], size: 2 << 30, oldSize: 1 << 30)
        },
        Row("the opened source has another size", .compares(.resized)) { $0.sourceSize = 1 << 29 },
        Row("the target's samples are others", .compares(.noReplica)) { $0.sampleDigest = "dead" },
        Row("a sample outside of the changes differs", .compares(.differs(at: 65536))) {
            $0.differences = [65536..<131_072, 1 << 20..<2 << 20]
        },
        Row("another program wrote while samples were read", .compares(.writtenMeanwhile)) {
            $0.counterAtEnd = other
        },
        Row("the counter is gone at the end", .compares(.noCounter("gone"))) {
            $0.counterAtEnd = .missing(reason: "gone")
        },
        Row("a finding failed", .compares(.failed("no map", advice: "wait"))) {
            $0.failure = .failed("no map", advice: "wait")
        },
        Row("a finding failed, and the source is in use", .compares(.sourceInUse)) {
            $0.source = volume("root.new", attributes: "Vwi-aotz--")
            $0.failure = .failed("no map", advice: nil)
        },
        Row("nothing is known yet", .finds("counter")) {
            ($0.counter, $0.changes, $0.sampleDigest) = (nil, nil, nil)
            ($0.differences, $0.counterAtEnd) = (nil, nil)
        },
        Row("only the counter is missing", .finds("counter")) { $0.counter = nil },
        Row("only the map is missing", .finds("changes")) { $0.changes = nil },
        Row("only the target's samples are missing", .finds("sampleDigest")) {
            $0.sampleDigest = nil
        },
        Row("only the comparison of samples is missing", .finds("differences")) {
            $0.differences = nil
        },
        Row("only the counter at the end is missing", .finds("counterAtEnd")) {
            $0.counterAtEnd = nil
        },
    ]

    @Test(arguments: rows)
    func `only a base that is proved in all respects limits what is read`(row: Row) throws {
        var facts = Facts()
        row.change(&facts)
        switch (facts.findings.decision, row.expected) {
        case (.readOnly(let changes, let counter), .reads(let ranges)):
            #expect(changes.ranges == ranges && counter == "m1")
        case (.compareEverything(let reason), .compares(let expected)):
            #expect(reason == expected)
            #expect(!reason.message(facts.findings).isEmpty)
        case (.find(let finding), .finds(let name)):
            #expect("\(finding)".hasPrefix(name))
        case (let decision, _): Issue.record("\(decision) instead of \(row.expected)")
        }
    }

    @Test func `no combination with a wrong or missing finding leaves anything unread`() {
        let wrong = Self.rows.filter { row in
            if case .reads = row.expected { false } else { true }
        }
        for last in wrong {
            for first in Self.rows {
                var facts = Facts()
                first.change(&facts)
                last.change(&facts)
                if case .readOnly = facts.findings.decision {
                    Issue.record("\(first.testDescription), and \(last.testDescription)")
                }
            }
        }
    }

    @Test func `a base is named with its target and the reason`() {
        var facts = Facts()
        facts.counter = Self.other
        let findings = facts.findings
        #expect(
            FallbackReason.written.message(findings)
                == "/dev/replica: another program may have written to it since it became the "
                + "replica of vg0/root.old")
        facts.source.origin = nil
        #expect(
            FallbackReason.sourceInUse.advice(facts.findings)
                == "--snapshot reads a snapshot of it.")
        facts.source.origin = "root"
        #expect(
            FallbackReason.sourceInUse.advice(facts.findings)
                == "lvchange --permission r vg0/root.new makes it read-only.")
    }
}

/// A thin volume of 1 GiB as lvs(8) reports it.
private func volume(_ name: String, attributes: String = "Vri---tz-k") -> LogicalVolume {
    let report = [
        "vg_name": "vg0", "vg_uuid": "group", "lv_name": name, "lv_uuid": "uuid-\(name)",
        "lv_size": "\(1 << 30)", "segtype": "thin", "data_stripes": "1", "pool_lv": "pool",
        "origin": "root", "origin_uuid": "uuid-root", "thin_id": "5", "transaction_id": "8",
        "lv_tags": "", "vg_free": "0", "vg_extent_size": "4194304", "lv_attr": attributes,
        "lv_dm_path": "/dev/mapper/vg0-\(name)",
    ]
    guard let json = try? JSONEncoder().encode(report),
        let volume = try? JSONDecoder().decode(LogicalVolume.self, from: json)
    else { fatalError("the report of lvs(8) has another form") }
    return volume
}
