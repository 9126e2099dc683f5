// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import NIOCore
import Testing

@testable import BlockServer

/// What a server decides from the head of a request.
@Suite struct RequestRulesTests {
    @Test func `a client must send or take at least 32 bytes a second`() {
        #expect(RequestRules.leastProgress(in: .seconds(60)) == 60 * 32)
        #expect(RequestRules.leastProgress(in: .milliseconds(500)) == 16)
        #expect(RequestRules.leastProgress(in: .milliseconds(1)) == 1)
    }
}
