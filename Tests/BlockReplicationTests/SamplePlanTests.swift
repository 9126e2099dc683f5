// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Testing

@testable import BlockReplication

@Suite struct SamplePlanTests {
    @Test(arguments: [1, 512, 65536, 65537, 1 << 20, 256 << 20, (1 << 40) + 512])
    func `sampled ranges ascend, are apart, within the device, and cover its two ends`(size: Int) {
        for seed in UInt64(0)..<20 {
            let plan = SamplePlan(size: size, oneIn: 512, atMost: 256, seed: seed)
            let ranges = plan.ranges
            #expect(ranges.first?.lowerBound == 0 && ranges.last?.upperBound == size)
            #expect(zip(ranges, ranges.dropFirst()).allSatisfy { $0.upperBound <= $1.lowerBound })
            #expect(ranges.allSatisfy { !$0.isEmpty && $0.count <= SamplePlan.region })
            #expect(ranges.count <= 256)
        }
    }

    @Test func `a plan has one sample per so many bytes, with a minimum and a maximum`() {
        func count(_ size: Int) -> Int {
            SamplePlan(size: size, oneIn: 512, atMost: 256, seed: 1).ranges.count
        }
        #expect(count(256 << 20) == 8)
        #expect(count(4 << 30) == 128)
        #expect(count(1 << 40) == 256)
        #expect(count(100_000) == 2)
    }

    @Test func `a seed gives the same samples each time, and another seed others`() {
        func plan(_ seed: UInt64) -> SamplePlan {
            SamplePlan(size: 4 << 30, oneIn: 512, atMost: 256, seed: seed)
        }
        #expect(plan(5) == plan(5))
        #expect(plan(5) != plan(6))
    }
}
