// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Testing

@Suite struct BlockLayoutTests {
    @Test(arguments: [512, 4096, 5120, 65536, 65536 + 512, 1 << 20, 16 << 20])
    func `a region is a power-of-two number of blocks, a window whole regions`(block: Int) {
        let layout = BlockLayout(block: block)
        #expect(layout.region % block == 0)
        #expect((layout.region / block).nonzeroBitCount == 1)
        #expect(layout.region >= min(64 << 10, layout.window))
        #expect(layout.window % layout.region == 0)
        #expect(layout.remoteWindow % layout.region == 0)
        #expect(layout.remoteWindow <= BlockLayout.longestWindow)
    }

    @Test(arguments: [
        .min, -512, 0, 1, 511, 513, 1000, (16 << 20) + 512, 1 << 25, .max,
    ])
    func `a block is a multiple of 512 bytes up to 16 MiB`(size: Int) {
        #expect(!BlockLayout.isBlock(size))
    }

    @Test func `the default block layout is that of design.md`() {
        let layout = BlockLayout()
        #expect(layout.block == 4096)
        #expect(layout.region == 65536)
    }
}
