// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import SyncEngine
import TestSupport
import Testing

@testable import BlockReplication

/// The warning at the end about a change that the sample before the first write had missed.
@Suite(.blocking) struct LateChangeWarningTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let replica: String
    private let size = 32 << 20

    init() throws {
        scratch = try ScratchDirectory()
        (source, replica) = try scratch.fileSystem(clonedAs: "replica", size: size)
    }

    /// The warning after a run in which some percent of the target differed.
    ///
    /// - Parameters:
    ///   - sampled: the percentage that the sample had shown; `nil` for no sample.
    ///   - inAllPasses: the percentage of all passes together, if there were several.
    private func warning(
        _ action: Replication.Action = .synchronize, to target: String? = nil,
        sampled: Double?, different: Int, inAllPasses: Int = 0, wholeFile: Bool = false
    ) throws -> String? {
        var options = Replication.Options()
        options.wholeFile = wholeFile
        let replication = try OpenPair(
            action, Operands(source, target ?? replica), options: options, control: RunControl()
        ) { _ in }
        var result = SyncReport(size: size, blockSize: 4096)
        result.tally.different = size * different / 100
        result.tally.differentInAllPasses = size * inAllPasses / 100
        return replication.warning(
            after: OpenPair.ExpectedChange(share: sampled.map { $0 / 100 }), result)
    }

    @Test func `a change of more than half that the sample missed is a warning at the end`() throws
    {
        for sampled in [nil, 0, 50] as [Double?] {
            let text = try #require(try warning(sampled: sampled, different: 75))
            #expect(text.hasPrefix("\(replica): 75 % of it differed from \(source) before"))
            #expect(text.contains("the replica of another machine"))
            #expect(text.contains("--max-change"))
        }
    }

    @Test func `the passes before a lost session count, also if the last one ended early`() throws {
        for (inAllPasses, percent) in [(75, 75), (120, 100)] {
            let text = try #require(
                try warning(sampled: 0, different: 5, inAllPasses: inAllPasses))
            #expect(text.hasPrefix("\(replica): \(percent) % of it differed from \(source) before"))
        }
        #expect(try warning(sampled: 0, different: 5, inAllPasses: 50) == nil)
    }

    @Test func `a change that an earlier warning has named is no warning at the end`() throws {
        #expect(try warning(sampled: 51, different: 75) == nil)
    }

    @Test func `a usual change is no warning`() throws {
        #expect(try warning(sampled: nil, different: 50) == nil)
        #expect(try warning(sampled: 0, different: 0) == nil)
    }

    @Test func `what is no replica, or was not compared or written, gets no warning at the end`()
        throws
    {
        let new = scratch.file("new")
        #expect(try warning(to: new, sampled: nil, different: 100) == nil)
        #expect(try warning(sampled: nil, different: 100, wholeFile: true) == nil)
        #expect(try warning(.dryRun, sampled: nil, different: 100) == nil)
        #expect(try warning(.compare, sampled: nil, different: 100) == nil)
    }
}
