// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import LinuxIO
import Testing

/// Waits that nothing but time or a cancellation ends.
@Suite(.timeLimit(.minutes(5))) struct PauseTests {
    @Test func `a pause lasts at least as long as asked`() {
        let begin = ContinuousClock.now
        let isOver = pause(for: .milliseconds(50))
        #expect(isOver && ContinuousClock.now - begin >= .milliseconds(50))
        let isOverAtOnce = pause(until: begin)
        #expect(isOverAtOnce)
    }

    @Test func `a cancellation ends a pause, however long it is`() {
        var questions = 0
        let isOver = pause(for: .seconds(36_000)) {
            questions += 1
            return questions == 3
        }
        #expect(!isOver && questions == 3)
    }

    @Test func `a cancelled pause does not begin`() {
        let isOver = pause(for: .zero) { true }
        #expect(!isOver)
    }
}
