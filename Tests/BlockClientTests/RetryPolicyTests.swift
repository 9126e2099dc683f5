// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import LinuxIO
import Testing

@testable import BlockClient

/// The decisions, without a server or a clock.
@Suite struct RetryPolicyTests {
    private let start = SuspendingClock.now
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

    @Test func `a request whose failure takes longer than the retry time gets a second attempt`() {
        var policy = RetryPolicy(retrySeconds: 30)
        guard case .again = decide(&policy, .lost(loss), attempt: 1, after: 60),
            case .fail = decide(&policy, .lost(loss), attempt: 2, after: 120)
        else { Issue.record("attempts"); return }
    }

    @Test func `without a retry time the first failure is final`() {
        var policy = RetryPolicy(retrySeconds: 0)
        _ = decide(&policy, success)
        guard case .fail(loss) = decide(&policy, .notConnected(loss)) else {
            Issue.record("tried again")
            return
        }
        #expect(policy.finalError == loss)
    }

    @Test(arguments: [0, 0.5, 1]) func `retries go on for as many hours as wished`(jitter: Double) {
        var policy = RetryPolicy(retrySeconds: 7200)
        var (time, attempt) = (0.0, 1)
        while case .again(let delay, _) = policy.decide(
            .lost(loss), attempt: attempt, isRetried: true, jitter: jitter,
            now: start + .seconds(time))
        {
            time += delay
            attempt += 1
        }
        #expect(abs(time - 7200) < 0.01 && attempt > 1000)
    }

    @Test func `an outage of some seconds is reported once, and so is its end`() {
        var policy = RetryPolicy(retrySeconds: 60)
        let steps: [(seconds: Double, fails: Bool, isNoted: Bool?, news: Outage?)] = [
            (0, true, true, nil), (4, true, true, nil),
            (6, true, false, .began(seconds: 6, reason: "lost")), (9, true, false, nil),
            (12, false, nil, .ended(seconds: 12)),
            // Another one, which is short.
            (20, true, true, nil), (21, false, nil, nil),
        ]
        for step in steps {
            let decision = decide(
                &policy, step.fails ? .lost(loss) : success, after: step.seconds)
            var isNoted: Bool?
            if case .again(_, let reason) = decision { isNoted = reason != nil }
            let news = policy.takeNews(at: start + .seconds(step.seconds))
            #expect(isNoted == step.isNoted && news == step.news, "\(step)")
        }
        #expect(policy.secondsLeft(at: start) == nil)
    }

    /// A server that accepts connections may answer nothing for a minute.
    @Test func `an outage is reported while an attempt is in progress`() {
        var policy = RetryPolicy(retrySeconds: 60)
        func news(after seconds: Double) -> Outage? {
            policy.takeNews(at: start + .seconds(seconds))
        }
        #expect(news(after: 100) == nil)
        _ = decide(&policy, .lost(loss), after: 100)
        #expect(news(after: 104) == nil)
        #expect(news(after: 105) == .began(seconds: 5, reason: "lost"))
        #expect(news(after: 150) == nil)
    }

    @Test func `retries may go on for ever`() {
        var policy = RetryPolicy(retrySeconds: Duration.seconds(Int64.max) / .seconds(1))
        guard case .again = decide(&policy, .lost(loss), after: 1e6) else {
            Issue.record("given up")
            return
        }
    }

    @Test func `a cancellation during an outage ends the transport, and one without does not`() {
        var policy = RetryPolicy(retrySeconds: 60)
        _ = decide(&policy, .final(.cancelled))
        #expect(policy.finalError == nil)
        _ = decide(&policy, .lost(loss))
        _ = decide(&policy, .final(.cancelled))
        #expect(policy.finalError?.kind == .cancelled)
    }

    @Test(arguments: [(30, "30 s"), (90, "90 s"), (300, "5 min"), (7200, "2 h"), (0, "0 s")])
    func `the report names the server, the time and the reason`(limit: Double, text: String) {
        let line = Outage.began(seconds: 6, reason: "lost").text(of: "http://h:1", limit: limit)
        let parts = line.split(separator: " since ", maxSplits: 1)
        #expect(parts.first == "waiting for http://h:1")
        #expect(parts.last?.dropFirst(8) == ", for up to \(text): lost")
        let end = Outage.ended(seconds: 61.2).text(of: "http://h:1", limit: limit)
        #expect(end == "http://h:1 answers again, after 61 s")
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
