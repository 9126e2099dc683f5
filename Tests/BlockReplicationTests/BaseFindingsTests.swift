// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LogicalVolumes
import TestSupport
import Testing

@testable import BlockReplication

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
        var source = thinVolume("root.new", attributes: "Vri-a-tz--")
        var sourceSize = 1 << 30
        var base: LogicalVolume? = thinVolume("root.old")
        /// As the record was made; afterwards the base may change.
        var record = ReplicaRecord(
            of: thinVolume("root.old"), target: "aa", mark: "m1", seed: 7, root: "beef", number: 3)
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

        /// Changes the base before its record is made.
        mutating func makeBase(_ change: (inout LogicalVolume) -> Void) {
            var changed = thinVolume("root.old")
            change(&changed)
            base = changed
            record = ReplicaRecord(
                of: changed, target: "aa", mark: "m1", seed: 7, root: "beef", number: 3)
        }

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

    /// In the order in which a run checks them; none has an effect on another.
    private static let reasons: [(FallbackReason, @Sendable (inout Facts) -> Void)] = [
        (.noEarlierRun, { $0.base = nil }),
        (.unknownReplica, { $0.identity = "bb" }),
        (.sourceInUse, { $0.source.attributes = "Vwi-aotz--" }),
        (.failed("it failed", advice: nil), { $0.failure = .failed("it failed", advice: nil) }),
        (.written, { $0.counter = other }),
        (
            .failed("vg0/root.old: no change map: \(nothingInCommon)", advice: nil),
            { $0.source.pool = "fast" }
        ),
        (.resized, { $0.sourceSize = 512 }),
        (.noReplica, { $0.sampleDigest = "dead" }),
        (.differs(at: 0), { $0.differences = [0..<1] }),
        (.writtenMeanwhile, { $0.counterAtEnd = other }),
    ]

    @Test func `the first of several reasons is reported`() {
        for first in Self.reasons.indices {
            var facts = Facts()
            for (_, change) in Self.reasons[first...] { change(&facts) }
            let reason = Self.reasons[first].0
            #expect(facts.findings.decision == .compareEverything(because: reason))
        }
    }

    @Test func `a run asks for one finding after the other, and for each only if all is well`()
        throws
    {
        let all = Facts().findings
        var findings = BaseFindings(
            target: all.target, identity: all.identity, source: all.source,
            sourceSize: all.sourceSize, base: all.base)
        var asked: [BaseFindings.Finding] = []
        while asked.count < 9, case .find(let finding) = findings.decision {
            asked.append(finding)
            switch finding {
            case .counter: findings.counter = all.counter
            case .changes: findings.changes = all.changes
            case .sampleDigest: findings.sampleDigest = all.sampleDigest
            case .differences: findings.differences = all.differences
            case .counterAtEnd: findings.counterAtEnd = all.counterAtEnd
            }
        }
        let base = try #require(all.base)
        let changes = try #require(all.changes)
        #expect(
            asked == [
                .counter,
                .changes(since: base, .thin(pool: "pool", old: 5, new: 5, mappedThen: nil)),
                .sampleDigest(seed: 7, size: all.sourceSize),
                .differences(outside: changes, size: all.sourceSize), .counterAtEnd,
            ])
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
