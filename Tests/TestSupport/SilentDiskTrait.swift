// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Synchronization
package import Testing

/// Keeps tests with a disk that does not answer apart from tests that write to a device by its tag.
///
/// While any disk of the machine does not answer, blkferry refuses a tag as target: that disk may
/// have the tag as well.
package struct SilentDiskTrait: SuiteTrait, TestTrait, TestScoping {
    fileprivate let makesDiskSilent: Bool

    package var isRecursive: Bool { true }

    package func provideScope(
        for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
    ) async throws {
        await SilentDiskLock.shared.lock(exclusively: makesDiskSilent)
        defer { SilentDiskLock.shared.unlock() }
        try await function()
    }
}

extension Trait where Self == SilentDiskTrait {
    /// The test has a disk that does not answer.
    package static var silentDisk: Self { Self(makesDiskSilent: true) }
    /// The test needs every disk to answer.
    package static var noSilentDisk: Self { Self(makesDiskSilent: false) }
}

/// A lock for one exclusive or several shared holders, in the order of their requests.
private final class SilentDiskLock: Sendable {
    static let shared = SilentDiskLock()

    private struct Request {
        var isExclusive: Bool
        var granted: CheckedContinuation<Void, Never>
    }

    private struct State {
        var holders = 0
        var isExclusive = false
        var queue: [Request] = []

        mutating func grantable() -> [Request] {
            var granted: [Request] = []
            while let next = queue.first, holders == 0 || !(isExclusive || next.isExclusive) {
                granted.append(queue.removeFirst())
                holders += 1
                isExclusive = next.isExclusive
            }
            return granted
        }
    }

    private let state = Mutex(State())

    func lock(exclusively isExclusive: Bool) async {
        await withCheckedContinuation { continuation in
            let request = Request(isExclusive: isExclusive, granted: continuation)
            grant { $0.queue.append(request) }
        }
    }

    func unlock() {
        grant { $0.holders -= 1 }
    }

    private func grant(_ change: (inout State) -> Void) {
        let granted = state.withLock {
            change(&$0)
            return $0.grantable()
        }
        for request in granted { request.granted.resume() }
    }
}
