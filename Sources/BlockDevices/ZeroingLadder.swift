// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import Synchronization
internal import SystemPackage

/// Zeroes ranges by the first of several methods that a device can do and that proved itself.
///
/// A method is proved once, by reading back what it first zeroed: devices exist that accept a
/// request and return old data. One that promises nothing, such as a discard, is proved each time,
/// all over the range. A method that the device refuses, or that did not prove itself, is not tried
/// again.
final class ZeroingLadder: Sendable {
    /// One way to zero a range.
    struct Method: Sendable {
        let name: String
        /// Whether the system says that the range is zeros then, once it works at all.
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

    /// Builds a ladder.
    ///
    /// - Parameters:
    ///   - methods: the cheapest first; writing zeros, the last resort, is not among them.
    ///   - readsAsZeros: reads the first and the last `ends` bytes of a range from the medium and
    ///     tells whether they are zeros.
    init(
        _ methods: [Method],
        readsAsZeros: @escaping @Sendable (ByteRange) throws(IOError) -> Bool
    ) {
        self.methods = methods
        self.readBack = readsAsZeros
    }

    /// Zeroes a range without writing data.
    ///
    /// - Parameters:
    ///   - range: bytes, aligned as the device wants it.
    ///   - name: what the user calls the device.
    /// - Returns: whether it is done; `false` when zeros have to be written.
    /// - Throws: ENOSPC.
    func zero(_ range: ByteRange, name: String) throws(IOError) -> Bool {
        while true {
            let (index, isProved) = state.withLock { ($0.current, $0.isProved) }
            guard index < methods.count else { return false }
            do throws(Errno) {
                try methods[index].apply(range)
            } catch {
                if error == .noSpace { throw IOError(name, "zero at \(range)", error) }
                // An error of this one range: writing may still succeed, and says why if not.
                guard error.meansUnsupported else { return false }
                demote(index)
                continue
            }
            if isProved && methods[index].isPromise { return true }
            // What cannot be read back proves nothing; writing zeros may still mend it.
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

    /// Bytes at each end of a range that are looked at.
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

    /// Never tries a method again, unless another thread has already moved on.
    private func demote(_ index: Int) {
        state.withLock { if $0.current == index { $0 = State(current: index + 1) } }
    }
}

extension Errno {
    /// Whether a call failed because the device or file system does not have the operation.
    fileprivate var meansUnsupported: Bool {
        switch self {
        // EINVAL: a range finer than the device can do (BLKZEROOUT and 4096-byte sectors).
        case .notSupported, .noFunction, .inappropriateIOCTLForDevice, .invalidArgument,
            .notPermitted:
            return true
        default: return false
        }
    }
}
