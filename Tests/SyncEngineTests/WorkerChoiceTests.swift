// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import SyncEngine
import Testing

/// The choice on made-up lines, whose times are computed.
@Suite(.timeLimit(.minutes(60))) struct WorkerChoiceTests {
    /// A line, and what runs over it.
    struct Line: Sendable, CustomTestStringConvertible {
        var name: String
        /// Bytes a second.
        var rate: Double
        /// Seconds.
        var roundTrip: Double
        /// Seconds of the server's work, one request at a time.
        var work = 0.0
        /// Threads in the end.
        var expected: ClosedRange<Int>

        var testDescription: String { name }

        /// Seconds of each of so many requests at once.
        func seconds(_ count: Int, bytes: Double) -> Double {
            max(roundTrip + bytes / rate + work, Double(count) * max(bytes / rate, work))
        }
    }

    private func makeChoice(usual: Int = Self.usual, most: Int? = Self.most, compares: Bool = false)
        -> WorkerChoice
    {
        WorkerChoice(usual: usual, most: most, compares: compares)
    }

    private static let usual = 8
    private static let most = 32
    private static let payload = Double(2 << 20)

    @Test(arguments: [
        Line(name: "1 Gbit/s, 400 ms", rate: 125e6, roundTrip: 0.4, expected: 28...32),
        Line(name: "1 Gbit/s, 200 ms", rate: 125e6, roundTrip: 0.2, expected: 20...26),
        Line(name: "10 Gbit/s, 100 ms", rate: 1.25e9, roundTrip: 0.1, expected: 32...32),
        Line(name: "1 Gbit/s, 30 ms", rate: 125e6, roundTrip: 0.03, expected: 8...8),
        Line(name: "10 Mbit/s, 600 ms", rate: 1.25e6, roundTrip: 0.6, expected: 8...8),
        Line(
            name: "a disk of 35 MB/s behind 200 ms", rate: 125e6, roundTrip: 0.2, work: 0.06,
            expected: 8...8),
    ])
    func `so many threads copy as fill the line, and no more than usual where it is full`(
        line: Line
    ) {
        var choice = makeChoice()
        for _ in 0..<500 {
            choice.move(line.seconds(choice.count, bytes: Self.payload), line.roundTrip)
        }
        #expect(line.expected.contains(choice.count), "\(choice.count)")
        let moved = Double(choice.count) * Self.payload
        let rate = moved / line.seconds(choice.count, bytes: Self.payload)
        let possible = min(line.rate, line.work > 0 ? Self.payload / line.work : .infinity)
        #expect(rate > 0.8 * possible || choice.count == Self.most)
    }

    @Test func `all threads compare at first, and the usual number moves data`() {
        var choice = makeChoice(compares: true)
        #expect(choice.count == Self.most)
        choice.note(comparison: 0.25, roundTrip: 0.2)
        #expect(choice.count == Self.most)
        var begun = choice.begins(Self.most)
        #expect(begun == Self.usual)
        #expect(choice.count == Self.usual)
        // One that failed says nothing about the line.
        choice.endData(after: nil, roundTrip: 0.2)
        begun = choice.begins(2)
        #expect(begun == 1)
        // It was fast, so that another one may begin in addition.
        choice.endData(after: 0.2, roundTrip: 0.2)
        begun = choice.begins(3)
        #expect(begun == 2)
    }

    @Test func `comparisons of equal windows need one round trip to four times the threads`() {
        var choice = makeChoice()
        for _ in 0..<Self.usual { choice.note(comparison: 0.25, roundTrip: 0.2) }
        #expect(choice.count == 4 * Self.usual)
    }

    @Test func `threads that only wait for each other stop working`() {
        var choice = makeChoice()
        for _ in 0..<100 { choice.move(0.2, 0.2) }
        #expect(choice.count == Self.most)
        for _ in 0..<100 { choice.move(1, 0.2) }
        #expect(choice.count == Self.usual)
    }

    @Test func `a line that is not long any more has the usual number at once`() {
        var choice = makeChoice()
        for _ in 0..<100 { choice.move(0.2, 0.2) }
        choice.move(0.2, nil)
        #expect(choice.count == Self.usual)
    }

    @Test func `threads end when there is no window, whatever the data does then`() {
        var choice = makeChoice(compares: true)
        choice.end()
        // The last window is that of a further thread, and has data.
        let begun = choice.begins(Self.most)
        #expect(begun == Self.usual)
        choice.endData(after: 1, roundTrip: 0.2)
        choice.note(comparison: 1, roundTrip: 0.2)
        #expect((0..<Self.most).allSatisfy { choice.takesWindows($0) })
    }

    @Test func `a number of the user's is kept`() {
        var choice = makeChoice(usual: 5, most: nil, compares: true)
        for _ in 0..<100 { choice.note(comparison: 0.2, roundTrip: 0.2) }
        #expect(choice.count == 5)
        choice.end()
        #expect(choice.count == 5)
    }
}

extension WorkerChoice {
    /// How many of so many requests with data may begin.
    fileprivate mutating func begins(_ wanted: Int) -> Int {
        var count = 0
        for _ in 0..<wanted where beginData() { count += 1 }
        return count
    }

    /// A request with data that took so long.
    fileprivate mutating func move(_ seconds: Double, _ roundTrip: Double?) {
        let begun = begins(1)
        #expect(begun == 1)
        endData(after: seconds, roundTrip: roundTrip)
    }
}
