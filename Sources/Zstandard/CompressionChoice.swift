// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Decides for each payload of a run whether compressing it makes the run faster.
///
/// It compares what was measured, and knows no clock: times are seconds since any fixed instant.
///
///     plain      payloads go as they are. Now and then a sample of one is compressed. If processor
///                and line together would be faster by `leastGain`, the choice tries compression.
///     trying     a few payloads go compressed, and show what the other side and contention cost
///     compressed payloads go compressed, and now and then one goes plain, since the line may have
///                become faster
///
/// A rate is that of one exchange from its beginning to the answer, in plain bytes a second, so that
/// it contains the line, both processors and the disk of the other side. The threads of a run share
/// one choice.
package struct CompressionChoice: Sendable {
    package enum Step: Hashable, Sendable {
        case plain
        /// Compress a sample first, and report it to `isWorthwhile`.
        case sample
        case compressed
    }

    private enum State {
        case plain
        case trying(left: Int)
        case compressed
    }

    /// Bytes of a payload below which an exchange shows the delay of the line, not its rate.
    package static let leastMeasured = 16 << 10

    /// Bytes of a sample.
    package static let sampleSize = 64 << 10

    /// The time with compression, as a share of the time without, up to which it is tried.
    ///
    /// The gain must pay for the processor time of both sides.
    private static let worthwhile = 0.8

    /// The least ratio of the rates with and without compression for going on.
    private static let leastGain = 1.1

    /// Payloads of a trial.
    private static let trialLength = 4

    /// Payloads in a row that did not become smaller, after which the data counts as incompressible.
    private static let mostIncompressible = 2

    /// The time between two samples, as a multiple of a sample's time: one costs half a percent.
    private static let sampleInterval = 200.0

    /// The time between two plain payloads, as a multiple of the time that one of them loses.
    private static let plainInterval = 100.0

    /// Seconds after a failed trial until the next sample; doubled with each further failure.
    private static let firstPause = 1.0
    private static let longestPause = 64.0

    private struct Rate {
        var bytes = 0.0
        var seconds = 0.0

        var value: Double? { bytes > 0 && seconds > 0 ? bytes / seconds : nil }

        /// Adds an exchange; older ones count half as much each time.
        mutating func add(_ count: Int, _ time: Double) {
            bytes = bytes / 2 + Double(count)
            seconds = seconds / 2 + max(time, 1e-6)
        }
    }

    private var state = State.plain
    private var plain = Rate()
    private var packed = Rate()
    private let processors: Int
    /// Exchanges in progress, which share the processors.
    private var inProgress = 0
    private var incompressible = 0
    private var nextSample = 0.0
    private var nextPlain = 0.0
    private var pause = firstPause

    package init(processors: Int) { self.processors = max(1, processors) }

    /// Whether payloads go compressed at present.
    package var isCompressing: Bool {
        if case .plain = state { false } else { true }
    }

    /// Begins an exchange, which ends with `note` or `abandon`.
    package mutating func begin(at now: Double) -> Step {
        inProgress += 1
        switch state {
        case .plain: return plain.value != nil && now >= nextSample ? .sample : .plain
        case .trying: return .compressed
        case .compressed:
            guard now >= nextPlain else { return .compressed }
            // Other threads must not send plain payloads as well.
            nextPlain = .infinity
            return .plain
        }
    }

    /// Judges a sample, and returns whether the payload is to be compressed.
    ///
    /// - Parameters:
    ///   - length: bytes of the compressed sample.
    ///   - count: bytes of the sample.
    ///   - seconds: the time that compressing it took.
    package mutating func isWorthwhile(
        sample length: Int, of count: Int, seconds: Double, at now: Double
    ) -> Bool {
        guard case .plain = state, let line = plain.value, count > 0 else { return isCompressing }
        let seconds = max(seconds, 1e-6)
        nextSample = now + Self.sampleInterval * seconds
        // The exchanges in progress would all compress, on the same processors.
        let load = max(1, Double(inProgress) / Double(processors))
        let ofProcessor = load * seconds / Double(count) * line
        guard ofProcessor + Double(length) / Double(count) <= Self.worthwhile else { return false }
        state = .trying(left: Self.trialLength)
        packed = Rate()
        incompressible = 0
        return true
    }

    /// Ends an exchange with a payload that went plain because `begin` or `isWorthwhile` said so.
    package mutating func note(plain count: Int, seconds: Double, at now: Double) {
        inProgress -= 1
        guard count >= Self.leastMeasured else { return resumePlain(at: now) }
        plain.add(count, seconds)
        guard isCompressing else { return }
        resumePlain(at: now)
        judge(at: now)
    }

    /// Ends an exchange with a payload that was to be compressed.
    ///
    /// - Parameters:
    ///   - length: bytes on the wire.
    ///   - count: bytes of the payload.
    package mutating func note(
        packed length: Int, of count: Int, seconds: Double, at now: Double
    ) {
        inProgress -= 1
        guard count >= Self.leastMeasured, isCompressing else { return }
        packed.add(count, seconds)
        incompressible = length < count - count / 20 ? 0 : incompressible + 1
        if incompressible >= Self.mostIncompressible {
            // A sample costs so little that the next one needs no pause.
            state = .plain
            nextSample = now
            return
        }
        if case .trying(let left) = state {
            state = .trying(left: left - 1)
            guard left <= 1 else { return }
            state = .compressed
            nextPlain = .infinity
        }
        judge(at: now)
    }

    /// Ends an exchange that failed.
    package mutating func abandon(at now: Double) {
        inProgress -= 1
        resumePlain(at: now)
    }

    /// Ends compression that does not pay.
    private mutating func judge(at now: Double) {
        guard case .compressed = state, let line = plain.value, let both = packed.value else {
            return
        }
        guard both < Self.leastGain * line else {
            pause = Self.firstPause
            if nextPlain == .infinity { resumePlain(at: now) }
            return
        }
        state = .plain
        nextSample = now + pause
        pause = min(2 * pause, Self.longestPause)
    }

    /// Chooses the time of the next plain payload by what one of them loses.
    private mutating func resumePlain(at now: Double) {
        guard case .compressed = state, nextPlain == .infinity else { return }
        var loss = 0.0
        if let line = plain.value, let both = packed.value {
            loss = Double(2 << 20) * max(0, 1 / line - 1 / both)
        }
        nextPlain = now + max(1, Self.plainInterval * loss)
    }
}
