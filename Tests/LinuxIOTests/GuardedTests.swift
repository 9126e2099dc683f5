// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import LinuxIO
import Testing

/// Threads that wait for each other's changes.
@Suite(.timeLimit(.minutes(5))) struct GuardedTests {
    @Test func `threads take turns in the order that the state permits`() {
        let turn = Guarded((next: 0, done: [Int]()))
        let count = 8
        let rounds = 200
        let threads = Threads.start(count: count, orInline: false) { index in
            for round in 0..<rounds {
                turn.wait { $0.next == round * count + index }
                turn.withLock {
                    $0.done.append($0.next)
                    $0.next += 1
                }
            }
        }
        #expect(threads.count == count)
        threads.wait()
        #expect(turn.withLock { $0.done } == Array(0..<count * rounds))
    }

    @Test func `a waiting thread changes the state for the next one`() {
        let free = Guarded(1)
        let used = Guarded((now: 0, most: 0))
        let threads = Threads.start(count: 8, orInline: false) { _ in
            for _ in 0..<500 {
                free.wait { count in
                    guard count > 0 else { return false }
                    count -= 1
                    return true
                }
                used.withLock {
                    $0.now += 1
                    $0.most = max($0.most, $0.now)
                }
                used.withLock { $0.now -= 1 }
                free.withLock { $0 += 1 }
            }
        }
        threads.wait()
        #expect(free.withLock { $0 } == 1)
        #expect(used.withLock { $0.most } == 1)
    }

    @Test func `after the deadline a wait returns nothing, and changes nothing`() {
        let state = Guarded(0)
        let begin = ContinuousClock.now
        let result = state.wait(until: begin + .milliseconds(30)) { $0 > 0 ? $0 : nil }
        #expect(result == nil && state.withLock { $0 } == 0)
        #expect(ContinuousClock.now - begin >= .milliseconds(30))
        let past = state.wait(until: begin) { $0 == 0 ? "a state that fits is enough" : nil }
        #expect(past != nil)
    }

    @Test func `a change ends a wait that can be cancelled`() {
        let state = Guarded(0)
        let thread = Threads.start(count: 1, orInline: false) { _ in state.withLock { $0 = 7 } }
        let result = state.wait(unless: { false }) { $0 > 0 ? $0 : nil }
        #expect(result == 7)
        thread.wait()
    }

    @Test func `a cancellation ends a wait, unless the state fits`() {
        let state = Guarded(0)
        var questions = 0
        let result = state.wait(unless: {
            questions += 1
            return questions == 3
        }) { $0 > 0 ? $0 : nil }
        #expect(result == nil && questions == 3)
        let fitting = state.wait(unless: { true }) { $0 == 0 ? "it fits" : nil }
        #expect(fitting != nil)
    }

    @Test func `an error of the function leaves the lock free`() {
        struct Failure: Error {}
        let state = Guarded(0)
        #expect(throws: Failure.self) {
            try state.withLock { number throws(Failure) in
                number = 1
                throw Failure()
            }
        }
        #expect(state.withLock { $0 } == 1)
    }

    @Test func `a ticker ends at once, however long its interval is`() {
        let calls = Guarded(0)
        let begin = ContinuousClock.now
        Ticker(.seconds(600)) { calls.withLock { $0 += 1 } }.stop()
        #expect(ContinuousClock.now - begin < .seconds(300))
        #expect(calls.withLock { $0 } == 0)
        let ticker = Ticker(.milliseconds(1)) { calls.withLock { $0 += 1 } }
        calls.wait { $0 >= 3 }
        ticker.stop()
    }
}
