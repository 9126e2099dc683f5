// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import WireProtocol

/// How one attempt at a request ended.
enum Outcome {
    case answer(HTTPResponse, retryAfter: Double?)
    /// No connection came about.
    case notConnected(HTTPError)
    /// The connection, or the server at its other end, failed on the way.
    case lost(HTTPError)
    /// Another attempt would end like this one.
    case final(HTTPError)
}

/// When a request is tried again, and when a transport gives up.
///
/// A value without a clock: what it is to know about time it is told.
struct RetryPolicy {
    typealias Instant = ContinuousClock.Instant

    enum Decision {
        case done(HTTPResponse)
        case fail(HTTPError)
        /// After so many seconds, because of that.
        case again(Double, String)
    }

    /// A request is tried so often, no matter how long it takes.
    static let leastAttempts = 3

    /// A request that always fails while others succeed, as a long one on a line that is cut again
    /// and again, is not tried for ever.
    private var mostAttempts: Int { 6 + Int(retrySeconds) }

    private static let firstDelay = 0.1
    private static let longestDelay = 3.0
    private static let longestRetryAfter = 5.0

    let retrySeconds: Double
    /// Before it nothing is known to be there at all, and a wrong address is told at once.
    private(set) var hasSucceeded = false
    /// When the first request after the last success failed.
    private(set) var failingSince: Instant?
    /// What every further request fails with.
    private(set) var death: HTTPError?

    init(retrySeconds: Double) { self.retrySeconds = retrySeconds }

    /// Takes note of an attempt's end and decides what follows.
    ///
    /// - Parameters:
    ///   - outcome: how it ended.
    ///   - attempt: its number, from 1.
    ///   - isRetried: whether the request may be sent again.
    ///   - jitter: from 0 to 1, by chance: threads that failed together do not come back together.
    ///   - now: the present.
    /// - Returns: what to do.
    mutating func decide(
        _ outcome: Outcome, attempt: Int, isRetried: Bool, jitter: Double, now: Instant
    ) -> Decision {
        let failure: HTTPError
        var giveUp: Decision
        var retryAfter = 0.0
        switch outcome {
        case .final(let error):
            return .fail(error)
        case .answer(let response, let seconds):
            guard Self.isPassing(response) else {
                hasSucceeded = true
                // A sign of life that gets through says nothing of the requests that do not.
                if isRetried { failingSince = nil }
                return .done(response)
            }
            failure = HTTPError(.unreachable, "the server answers with status \(response.status)")
            giveUp = .done(response)
            retryAfter = min(seconds ?? 0, Self.longestRetryAfter)
        case .notConnected(let error):
            guard hasSucceeded else { return .fail(error) }
            failure = error
            giveUp = .fail(error)
        case .lost(let error):
            failure = error
            giveUp = .fail(error)
        }
        guard isRetried else { return giveUp }
        if let death {
            // Another request's end; what this one saw is only more of the same.
            if case .fail = giveUp { giveUp = .fail(death) }
            return giveUp
        }
        let start = failingSince ?? now
        failingSince = start
        let left = retrySeconds - (now - start) / .seconds(1)
        guard attempt < Self.leastAttempts || (left > 0 && attempt < mostAttempts) else {
            death = failure
            return giveUp
        }
        let delay = max(Self.delay(after: attempt, jitter: jitter), retryAfter)
        // The last attempt is made when the time is up, not up to a delay earlier.
        return .again(left > 0 ? min(delay, left) : delay, failure.reason)
    }

    /// Seconds to wait after an attempt, a quarter more or less by chance.
    static func delay(after attempt: Int, jitter: Double) -> Double {
        let doublings = min(max(attempt, 1) - 1, 16)
        return min(firstDelay * Double(1 << doublings), longestDelay) * (0.75 + 0.5 * jitter)
    }

    /// Whether an answer tells of a state that may pass: a proxy's, or a server's that is starting.
    ///
    /// A 500 that says what is wrong comes from blkferry, which would only say it again.
    static func isPassing(_ response: HTTPResponse) -> Bool {
        switch response.status {
        case 502, 503, 504: true
        case 500: !isProblem(response.contentType)
        default: false
        }
    }

    private static func isProblem(_ contentType: String) -> Bool {
        let type = contentType.prefix { $0 != ";" && $0 != " " }
        return type.lowercased() == MediaType.problem
    }
}
