// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CZstd

/// zstd (RFC 8878) from the system's libzstd, which is loaded on first use.
package enum Zstd {
    package static let levels = 1...19

    /// zstd's own default.
    package static let defaultLevel = 3

    /// The level of automatic compression, the fastest.
    package static let fastLevel = 1

    /// The highest level for another machine's request: higher ones take seconds for a payload, and
    /// tens of MiB of memory.
    package static let highestServedLevel = 6

    /// Why libzstd cannot be used, in one line; `nil` if it is loaded.
    package static var fault: String? { cz_load().map { String(cString: $0) } }

    /// The size of the content that a frame announces, in bytes; `nil` unless the bytes are exactly
    /// one frame that announces one.
    ///
    /// It takes no memory. Without libzstd it is `nil`.
    package static func contentSize(of frame: UnsafeRawBufferPointer) -> Int? {
        guard fault == nil else { return nil }
        return Int(exactly: cz_content_size(frame.baseAddress, frame.count))
            .flatMap { $0 < 0 ? nil : $0 }
    }
}

/// Compresses and decompresses, and keeps libzstd's memory for the next call.
///
/// It is safe to send, because one thread at a time uses it.
package final class ZstdContext: @unchecked Sendable {
    private let context: OpaquePointer

    /// `nil` without libzstd, or without memory.
    package init?() {
        guard Zstd.fault == nil, let context = cz_new() else { return nil }
        self.context = context
    }

    deinit { cz_free(context) }

    /// Compresses bytes into one frame that announces their number, and returns its length; `nil`
    /// if it does not fit in the memory.
    ///
    /// - Parameter level: of `Zstd.levels`.
    package func compress(
        _ bytes: UnsafeRawBufferPointer, into memory: UnsafeMutableRawBufferPointer, level: Int
    ) -> Int? {
        let length = cz_compress(
            context, memory.baseAddress, memory.count, bytes.baseAddress, bytes.count,
            Int32(clamping: level))
        return length == 0 ? nil : length
    }

    /// Decompresses a frame; `false` unless its content fills the memory exactly.
    package func decompress(
        _ frame: UnsafeRawBufferPointer, into memory: UnsafeMutableRawBufferPointer
    ) -> Bool {
        cz_decompress(
            context, memory.baseAddress, memory.count, frame.baseAddress, frame.count)
    }
}

/// When payloads are compressed.
package enum CompressionMode: Hashable, Sendable {
    case none
    /// Where it is faster, by measurements of each run.
    case auto
    /// Each payload that becomes smaller.
    case zstd(level: Int)

    /// The level of the payloads; `nil` for no compression.
    package var level: Int? {
        switch self {
        case .none: nil
        case .auto: Zstd.fastLevel
        case .zstd(let level): level
        }
    }
}
