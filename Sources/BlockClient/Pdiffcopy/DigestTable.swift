// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
internal import LinuxIO
internal import Synchronization
internal import WireProtocol

/// The digests of a file on a pdiffcopy server, usable while they still arrive.
///
/// One thread receives them. The lock guards the digests and the progress.
final class DigestTable: ResponseSink, Sendable {
    private enum Progress {
        case loading
        case complete
        case failed(IOError)
    }

    private struct State {
        var lines: DigestLines
        var progress = Progress.loading
        /// The first invalid line of the current attempt.
        var fault: WireError?
        /// Bytes that arrived after the invalid line.
        var excess = 0
    }

    private let server: PdiffcopyServer
    private let state: Guarded<State>
    private let isDropped = Atomic(false)

    /// Bytes accepted after an invalid line; they may be an error page, whose status makes a better
    /// message.
    private static let excessLimit = 64 << 10

    /// Starts a thread that requests all digests; sizes in bytes.
    init(
        _ server: PdiffcopyServer, size: Int, block: Int, method: DigestMethod, concurrency: Int?
    ) {
        self.server = server
        state = Guarded(
            State(lines: DigestLines(size: size, block: block, digestSize: method.byteCount)))
        let running = Threads.start(count: 1, orInline: false) { [self] _ in
            load(block: block, method, concurrency)
        }
        if running.isEmpty {
            end(.failed(IOError(server.name, "compare", reason: "no thread can be started")))
        }
    }

    private func load(block: Int, _ method: DigestMethod, _ concurrency: Int?) {
        do throws(IOError) {
            try server.digests(block: block, method: method, concurrency: concurrency, into: self)
            let fault = state.withLock { state -> WireError? in
                if let fault = state.fault { return fault }
                do throws(WireError) { try state.lines.end() } catch { return error }
                return nil
            }
            end(fault.map { .failed(error(for: $0)) } ?? .complete)
        } catch {
            // If `append` ended the transfer, libcurl's message says nothing about the cause.
            let fault = state.withLock { $0.excess > Self.excessLimit ? $0.fault : nil }
            end(.failed(fault.map { self.error(for: $0) } ?? error))
        }
    }

    private func end(_ progress: Progress) { state.withLock { $0.progress = progress } }

    private func error(for fault: WireError) -> IOError {
        .network(
            server.name, "compare",
            reason: "the server's hashes cannot be used: \(fault.reason)")
    }

    /// Returns an error if the answer is invalid, even after the digests that the run used.
    ///
    /// If all lines have arrived, it waits for the end of the answer, which comes within seconds.
    func contradiction() -> IOError? {
        let fault = state.wait(unless: server.isCancelled) { state -> WireError?? in
            if state.fault == nil, case .loading = state.progress, state.lines.isComplete {
                return nil
            }
            return .some(state.fault)
        }
        return fault.flatMap { $0 }.map { error(for: $0) }
    }

    var isLoading: Bool {
        state.withLock { if case .loading = $0.progress { true } else { false } }
    }

    func drop() { isDropped.store(true, ordering: .relaxed) }

    /// Waits for the digests of blocks, and copies them one after the other.
    ///
    /// - Throws: errors of the network; an error if the answer is invalid.
    func copy(_ blocks: Range<Int>, to memory: UnsafeMutableRawBufferPointer) throws(IOError) {
        var open = blocks
        let result = state.wait(unless: server.isCancelled) { state -> Result<Void, IOError>? in
            guard let next = state.lines.firstUnknown(open) else {
                state.lines.copy(blocks, to: memory)
                return .success(())
            }
            open = next..<blocks.upperBound
            if case .failed(let error) = state.progress { return .failure(error) }
            return nil
        }
        guard let result else {
            var error = IOError.cancelled
            (error.object, error.operation) = (server.name, "compare")
            throw error
        }
        try result.get()
    }
}

extension DigestTable {
    var limit: Int { .max }

    /// All lines have arrived, or an invalid one, or the run needs them no longer.
    var isFulfilled: Bool {
        isDropped.load(ordering: .relaxed)
            || state.withLock { $0.lines.isComplete || $0.fault != nil }
    }

    func reset() {
        state.withLock { state in
            state.lines.restart()
            state.fault = nil
            state.excess = 0
        }
    }

    func append(_ bytes: UnsafeRawBufferPointer) -> Bool {
        if isDropped.load(ordering: .relaxed) { return false }
        return state.withLock { state in
            if state.fault == nil {
                do throws(WireError) { try state.lines.take(bytes) } catch { state.fault = error }
                return true
            }
            state.excess += bytes.count
            return state.excess <= Self.excessLimit
        }
    }
}
