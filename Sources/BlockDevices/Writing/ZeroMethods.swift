// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import Synchronization
internal import SystemPackage

/// Zeroes ranges with the first method that the device supports and that has proved itself.
///
/// The first range is read back, because some devices accept a request and return old data. Without
/// a guarantee, as for a discard, every range is read back completely. A method that is refused or
/// fails this proof is not used again.
final class ZeroMethods: Sendable {
    struct Method: Sendable {
        let name: String
        /// Whether the system guarantees zeros if the call succeeds.
        let isPromise: Bool
        let apply: @Sendable (ByteRange) throws(Errno) -> Void

        init(
            _ name: String, isPromise: Bool = true,
            _ apply: @escaping @Sendable (ByteRange) throws(Errno) -> Void
        ) {
            self.name = name
            self.isPromise = isPromise
            self.apply = apply
        }
    }

    private struct State {
        var current = 0
        var isProved = false
    }

    private let methods: [Method]
    private let readBack: @Sendable (ByteRange) throws(IOError) -> Bool
    private let state = Mutex(State())

    /// - Parameters:
    ///   - methods: the cheapest first, without the last resort, which is writing zeros.
    ///   - readsAsZeros: whether the first and last `ends` bytes of a range are zeros on the
    ///     medium.
    init(
        _ methods: [Method],
        readsAsZeros: @escaping @Sendable (ByteRange) throws(IOError) -> Bool
    ) {
        self.methods = methods
        self.readBack = readsAsZeros
    }

    /// Zeroes an aligned range without writing data; `false` if the caller must write zeros.
    ///
    /// It throws only ENOSPC.
    func zero(_ range: ByteRange, name: String) throws(IOError) -> Bool {
        while true {
            let (index, isProved) = state.withLock { ($0.current, $0.isProved) }
            guard index < methods.count else { return false }
            do throws(Errno) {
                try methods[index].apply(range)
            } catch {
                if error == .noSpace { throw IOError(name, "zero at \(range)", error) }
                // The error concerns this range only. Writing may succeed, or shows the reason.
                guard error.meansUnsupported else { return false }
                demote(index)
                continue
            }
            if isProved && methods[index].isPromise { return true }
            // A failed read proves nothing. Writing zeros may repair the sector.
            guard let isZero = try? isZero(range, wholly: !methods[index].isPromise) else {
                return false
            }
            if isZero {
                state.withLock { if $0.current == index { $0.isProved = true } }
                return true
            }
            demote(index)
        }
    }

    /// Bytes.
    static let ends = 64 << 10

    private func isZero(_ range: ByteRange, wholly: Bool) throws(IOError) -> Bool {
        guard wholly else { return try readBack(range) }
        var offset = range.offset
        while offset < range.end {
            let piece = ByteRange(offset, to: min(offset + 2 * Self.ends, range.end))
            guard try readBack(piece) else { return false }
            offset = piece.end
        }
        return true
    }

    /// Gives up a method, unless another thread has already moved on.
    private func demote(_ index: Int) {
        state.withLock { if $0.current == index { $0 = State(current: index + 1) } }
    }
}

extension Errno {
    fileprivate var meansUnsupported: Bool {
        switch self {
        // EINVAL also means that the range is too fine (BLKZEROOUT with 4096-byte sectors).
        case .notSupported, .noFunction, .inappropriateIOCTLForDevice, .invalidArgument,
            .notPermitted:
            return true
        default: return false
        }
    }
}
