// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import LinuxIO
import Testing

@testable import BlockClient

/// The decisions, without a server or a clock.
@Suite struct RetryPolicyTests {
    private let start = ContinuousClock.now
    private let loss = IOError.transport("lost")
    private let success = AttemptResult.answer(
        HTTPResponse(status: 200, contentType: ""), retryAfter: nil)

    private func decide(
        _ policy: inout RetryPolicy, _ outcome: AttemptResult, attempt: Int = 1,
        isRetried: Bool = true,
        after seconds: Double = 0
    ) -> RetryPolicy.Decision {
        policy.decide(
            outcome, attempt: attempt, isRetried: isRetried, jitter: 0.5,
            now: start + .seconds(seconds))
    }

    @Test func `retry delays double from 0.1 s to 3 s and vary by a quarter`() {
        let delays = (1...9).map { RetryPolicy.delay(after: $0, jitter: 0.5) }
        #expect(delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3, 3, 3, 3])
        #expect(RetryPolicy.delay(after: 1, jitter: 0) == 0.1 * 0.75)
        #expect(RetryPolicy.delay(after: 1, jitter: 1) == 0.1 * 1.25)
        #expect(RetryPolicy.delay(after: 1_000_000_000, jitter: 0.5) == 3)
    }

    @Test func `the retry time counts from the first failure after the last success`() {
        var policy = RetryPolicy(retrySeconds: 30)
        guard case .done = decide(&policy, success) else { Issue.record("success"); return }
        // Long after the success: work at this end takes its time.
        guard case .again = decide(&policy, .lost(loss), attempt: 3, after: 100),
            case .again(let delay, _) = decide(&policy, .lost(loss), attempt: 9, after: 129),
            case .fail(loss) = decide(&policy, .lost(loss), attempt: 10, after: 130)
        else { Issue.record("time"); return }
        #expect(delay == 1, "the last attempt is made when the time is up")
        #expect(policy.finalError == loss)
    }

    @Test func `any success starts the retry time again`() {
        var policy = RetryPolicy(retrySeconds: 30)
        _ = decide(&policy, .lost(loss), attempt: 3)
        _ = decide(&policy, success, after: 29)
        guard case .again = decide(&policy, .lost(loss), attempt: 4, after: 58) else {
            Issue.record("gave up")
            return
        }
    }

    @Test func `a keepalive, which is not repeated, does not start the retry time again`() {
        var policy = RetryPolicy(retrySeconds: 30)
        _ = decide(&policy, .lost(loss), attempt: 3)
        _ = decide(&policy, success, isRetried: false, after: 29)
        guard case .fail(loss) = decide(&policy, .lost(loss), attempt: 4, after: 30) else {
            Issue.record("went on")
            return
        }
    }

    @Test func `three attempts are made no matter how long they take`() {
        var policy = RetryPolicy(retrySeconds: 30)
        guard case .again = decide(&policy, .lost(loss), attempt: 1, after: 60),
            case .again(let delay, _) = decide(&policy, .lost(loss), attempt: 2, after: 120),
            case .fail = decide(&policy, .lost(loss), attempt: 3, after: 180)
        else { Issue.record("attempts"); return }
        #expect(delay == 0.2)
    }

    @Test func `before the first success a connection that fails is not tried again`() {
        var policy = RetryPolicy(retrySeconds: 30)
        guard case .fail(loss) = decide(&policy, .notConnected(loss)) else {
            Issue.record("tried again")
            return
        }
        #expect(policy.finalError == nil)
        _ = decide(&policy, success)
        guard case .again = decide(&policy, .notConnected(loss)) else {
            Issue.record("not tried again")
            return
        }
    }

    @Test func `Retry-After lengthens a delay, up to 5 s`() {
        let busy = HTTPResponse(status: 503, contentType: "")
        var policy = RetryPolicy(retrySeconds: 30)
        for (asked, expected) in [(nil, 0.1), (0.01, 0.1), (2, 2), (3600, 5)] {
            guard case .again(expected, _) = decide(&policy, .answer(busy, retryAfter: asked))
            else {
                Issue.record("\(asked ?? -1)")
                continue
            }
        }
    }

    @Test func `some statuses are transient, and others are permanent`() {
        func isPassing(_ status: Int, _ type: String = "") -> Bool {
            RetryPolicy.isPassing(HTTPResponse(status: status, contentType: type))
        }
        #expect(isPassing(502) && isPassing(503) && isPassing(504) && isPassing(500))
        #expect(isPassing(500, "text/html") && isPassing(503, "application/problem+json"))
        #expect(!isPassing(500, "application/problem+json"))
        #expect(!isPassing(500, "Application/Problem+JSON; charset=utf-8"))
        #expect(isPassing(429) && !isPassing(200) && !isPassing(404) && !isPassing(501))
    }
}
