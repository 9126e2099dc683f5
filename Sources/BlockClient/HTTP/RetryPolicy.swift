// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import WireProtocol

enum AttemptResult {
    case answer(HTTPResponse, retryAfter: Double?)
    case notConnected(IOError)
    /// The connection, or the server behind it, failed during the request.
    case lost(IOError)
    case final(IOError)
}

/// Decides when a request is retried, and when a transport gives up.
///
/// It is a value without a clock; callers pass the time.
struct RetryPolicy {
    /// While the machine is suspended, its time for retries stands still.
    typealias Instant = SuspendingClock.Instant

    enum Decision {
        case done(HTTPResponse)
        case fail(IOError)
        /// Retry after so many seconds, for this reason; `nil` if the outage was reported.
        case again(Double, String?)
    }

    /// Maximum number of attempts at a request, even if other requests succeed; a long request on
    /// an unstable line may fail every time.
    private var mostAttempts: Int { 6 + Int(min(retrySeconds, 1e9)) }

    private static let firstDelay = 0.1
    private static let longestDelay = 3.0
    private static let longestRetryAfter = 5.0
    /// Seconds after which an outage is reported; until then each retry has its note.
    private static let reportDelay = 5.0

    /// Seconds after the first failure; 0 for no retries.
    let retrySeconds: Double
    /// Whether any request has succeeded; before the first success a failed connection is reported
    /// at once, because the address may be wrong.
    private(set) var hasSucceeded = false
    /// The time of the first failure after the last success.
    private(set) var failingSince: Instant?
    /// The error of all further requests after the transport gave up.
    private(set) var finalError: IOError?
    /// The reason of the last failure.
    private var reason = ""
    private var isReported = false
    private var news: Outage?

    init(retrySeconds: Double) { self.retrySeconds = retrySeconds }

    /// Seconds that are left for retries, at least 0; `nil` if the last request succeeded.
    func secondsLeft(at now: Instant) -> Double? {
        failingSince.map { max(0, retrySeconds - (now - $0) / .seconds(1)) }
    }

    /// What is to be reported since the last call.
    mutating func takeNews(at now: Instant) -> Outage? {
        if let start = failingSince, !isReported, finalError == nil {
            let seconds = (now - start) / .seconds(1)
            if seconds >= Self.reportDelay {
                isReported = true
                news = .began(seconds: seconds, reason: reason)
            }
        }
        return news.take()
    }

    /// Records the end of an attempt and decides what follows.
    ///
    /// - Parameters:
    ///   - attempt: from 1.
    ///   - jitter: a random number from 0 to 1. It keeps threads that failed together from retrying
    ///     together.
    mutating func decide(
        _ outcome: AttemptResult, attempt: Int, isRetried: Bool, jitter: Double, now: Instant
    ) -> Decision {
        let failure: IOError
        var giveUp: Decision
        var retryAfter = 0.0
        switch outcome {
        case .final(let error):
            guard error.kind == .cancelled, failingSince != nil else { return .fail(error) }
            // Cleaning up would wait for the lost server again. A login of ssh also ends with this
            // error when another request has made the transport give up.
            let ending = finalError ?? error
            finalError = ending
            return .fail(ending)
        case .answer(let response, let seconds):
            guard Self.isPassing(response) else {
                hasSucceeded = true
                // A successful keepalive does not show that other requests would succeed.
                if isRetried { endOutage(now) }
                return .done(response)
            }
            failure = .transport("the server answers HTTP \(response.status)")
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
        if let finalError {
            // Another request made the transport give up. Its error is the relevant one.
            if case .fail = giveUp { giveUp = .fail(finalError) }
            return giveUp
        }
        let start = failingSince ?? now
        (failingSince, reason) = (start, failure.reason)
        let left = retrySeconds - (now - start) / .seconds(1)
        guard left > 0, attempt < mostAttempts else {
            finalError = failure
            return giveUp
        }
        let delay = max(Self.delay(after: attempt, jitter: jitter), retryAfter)
        // The last attempt is made when the time is up, not up to one delay earlier.
        let isKnown = isReported || retrySeconds - left >= Self.reportDelay
        return .again(min(delay, left), isKnown ? nil : failure.reason)
    }

    private mutating func endOutage(_ now: Instant) {
        if isReported, finalError == nil, let start = failingSince {
            news = .ended(seconds: (now - start) / .seconds(1))
        }
        (failingSince, isReported) = (nil, false)
    }

    /// Seconds to wait after an attempt, randomly varied by a quarter.
    static func delay(after attempt: Int, jitter: Double) -> Double {
        let doublings = min(max(attempt, 1) - 1, 16)
        return min(firstDelay * Double(1 << doublings), longestDelay) * (0.75 + 0.5 * jitter)
    }

    /// Returns whether an answer shows a temporary state, of a proxy or of a server that is
    /// starting.
    ///
    /// A 500 with a problem body comes from blkferry, which would answer the same again.
    static func isPassing(_ response: HTTPResponse) -> Bool {
        switch response.status {
        case 429, 502, 503, 504: true
        case 500: !isProblem(response.contentType)
        default: false
        }
    }

    private static func isProblem(_ contentType: String) -> Bool {
        let type = contentType.prefix { $0 != ";" && $0 != " " }
        return type.lowercased() == MediaType.problem
    }
}
