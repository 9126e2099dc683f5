// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import LinuxIO
internal import Synchronization

/// Asks several devices at once, each with its own timeout.
///
/// A device that does not answer delays no other device. Its thread is abandoned, and ends when the
/// device answers, or with the process.
final class TimedProbes<Answer: Sendable>: Sendable {
    private struct Item {
        var began: ContinuousClock.Instant?
        var answer: Answer?
        var isLate = false
        /// Lets the process end even if this device does not answer.
        var keeper: DeviceKeeper?

        var isKnown: Bool { answer != nil || isLate }
    }
    private struct State {
        var items: [Item]
        /// Index of the first device that no thread has taken.
        var next = 0
    }
    private let state: Guarded<State>
    private let numbers: [UInt64]
    private let patience: Duration
    private let ask: @Sendable (_ index: Int) -> Answer

    /// - Parameter threads: devices that are asked at once, without the late ones.
    init(
        _ numbers: [UInt64], patience: Duration, threads: Int,
        _ ask: @escaping @Sendable (_ index: Int) -> Answer
    ) {
        self.numbers = numbers
        self.patience = patience
        self.ask = ask
        state = Guarded(State(items: numbers.map { _ in Item() }))
        for _ in 0..<min(threads, numbers.count) { startThread() }
    }

    /// Waits for a device's answer until its timeout; `nil` if there is none.
    func answer(_ index: Int) -> Answer? {
        while true {
            let (item, isOverdue) = state.withLock { state in
                let item = state.items[index]
                let isTimedOut = item.began.map { ContinuousClock.now - $0 > patience } ?? false
                let isOverdue = isTimedOut && item.answer == nil && !item.isLate
                if isOverdue {
                    state.items[index].isLate = true
                    LateDevices.shared.add(numbers[index])
                }
                return (item, isOverdue)
            }
            if let answer = item.answer { return answer }
            if isOverdue { startThread() }
            if isOverdue || item.isLate { return nil }
            prepareForEnd()
            // The timeout begins only when a thread takes the device.
            _ = state.wait(until: .now + Self.pollInterval) { $0.items[index].isKnown ? true : nil }
        }
    }

    /// Waits until `answer` returns at once for every device, or until a deadline.
    func waitForAll(until deadline: ContinuousClock.Instant) {
        let isOver: () -> Bool = { [self] in
            prepareForEnd()
            return ContinuousClock.now >= deadline
        }
        _ = state.wait(unless: isOver) { $0.items.allSatisfy(\.isKnown) ? true : nil }
    }

    /// Whether `answer` returns at once.
    func isKnown(_ index: Int) -> Bool {
        prepareForEnd()
        return state.withLock { $0.items[index].isKnown }
    }

    /// Time between two looks at the clock.
    private static var pollInterval: Duration { .milliseconds(20) }

    /// After this time a device may never answer.
    private static var briefly: Duration { .milliseconds(150) }

    /// Makes sure that the process can end although slow devices have not answered.
    private func prepareForEnd() {
        let now = ContinuousClock.now
        state.withLock { state in
            let slow = state.items.indices.filter { index in
                let item = state.items[index]
                return item.answer == nil && !item.isLate && item.keeper == nil
                    && item.began.map { now - $0 > Self.briefly } ?? false
            }
            guard !slow.isEmpty, let keeper = DeviceKeeper(slow.map { numbers[$0] }) else { return }
            for index in slow { state.items[index].keeper = keeper }
        }
    }

    private func startThread() {
        guard !Threads.startDetached({ [self] in work() }) else { return }
        // Without threads the devices are asked one after the other, without a timeout.
        work()
    }

    private func work() {
        while let index = take() {
            let answer = ask(index)
            let wasLate = state.withLock { state in
                // The callers have already received that it is late.
                if !state.items[index].isLate { state.items[index].answer = answer }
                state.items[index].keeper = nil
                return state.items[index].isLate
            }
            guard wasLate else { continue }
            // Another thread has replaced this one.
            return LateDevices.shared.remove(numbers[index])
        }
    }

    private func take() -> Int? {
        state.withLock { state in
            while state.next < state.items.count {
                let index = state.next
                state.next += 1
                guard LateDevices.shared.has(numbers[index]) else {
                    state.items[index].began = .now
                    return index
                }
                state.items[index].isLate = true
            }
            return nil
        }
    }
}

/// Devices that an abandoned thread of this process still waits for.
///
/// The server does not probe them again until then, since it would accumulate threads.
final class LateDevices: Sendable {
    static let shared = LateDevices()

    private let threads = Mutex<[UInt64: Int]>([:])

    func has(_ number: UInt64) -> Bool { threads.withLock { $0[number] != nil } }

    fileprivate func add(_ number: UInt64) { threads.withLock { $0[number, default: 0] += 1 } }

    fileprivate func remove(_ number: UInt64) {
        threads.withLock { threads in
            guard let count = threads[number] else { return }
            threads[number] = count > 1 ? count - 1 : nil
        }
    }
}
