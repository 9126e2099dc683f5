// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO

/// Finds out what a target is to a delta, before anything is written.
///
/// It reads the target once, and lays the delta over what it reads. So the digest of the result is
/// known before the first write.
package struct DeltaCheck {
    package enum State: Hashable, Sendable {
        /// The target is the result.
        case result
        /// The target is the base.
        case base
        /// An apply was interrupted: each unit is that of the base or that of the result.
        case between
        /// The delta leads to the result, but it would overwrite bytes that neither state has.
        case unproven(bytes: Int, first: Int)
        /// The target is another base.
        case other
    }

    private let delta: DeltaReader
    private let statement: DeltaStatement
    private let target: any BlockDevice
    /// Bytes of the target that are read; zeros count behind them.
    private let size: Int
    private let hasResultSize: Bool
    private let isCancelled: () -> Bool

    /// - Parameter hasResultSize: whether the target need not be cut or extended.
    package init(
        _ delta: DeltaReader, _ statement: DeltaStatement, target: any BlockDevice,
        hasResultSize: Bool, unless isCancelled: @escaping () -> Bool
    ) {
        self.delta = delta
        self.statement = statement
        self.target = target
        self.hasResultSize = hasResultSize
        self.isCancelled = isCancelled
        size = min(target.geometry.size, statement.span)
    }

    package func run() throws(IOError) -> State {
        let (base, result) = (statement.base.size, statement.result.size)
        let windows = WindowStream(target, size: size)
        defer { windows.stop() }
        let overlay = try DeltaOverlay(delta, statement)
        let asBase = try RunningDigest()
        // The bytes as they are, up to the end of the result; the same as `asBase` for equal sizes.
        let asResult = base == result ? nil : try RunningDigest()
        // The bytes under the delta; `nil` while they are the same as `asBase`.
        var overlaid = base == result ? nil : try RunningDigest()
        let tail = result < base ? try RunningDigest() : nil
        var isTailZero = true
        var start = 0
        while start < statement.span {
            if isCancelled() { throw DeltaReader.cancelled(delta.name) }
            let range = ByteRange(
                start, to: min(start + WindowStream.length, statement.span))
            let content = try windows.next()?.content ?? .zeros
            if overlaid == nil, try overlay.touches(range) { overlaid = try asBase.copy() }
            let (inBase, inResult) = (range.count(below: base), range.count(below: result))
            try inParallel({ () throws(IOError) in
                try asBase.add(content, count: inBase)
                try asResult?.add(content, count: inResult)
                if inBase > inResult {
                    try tail?.add(content, from: inResult, to: inBase)
                    isTailZero = isTailZero && content.isZero(from: inResult, to: inBase)
                }
            }) { () throws(IOError) in
                guard let overlaid else { return }
                try overlaid.add(overlay.lay(over: content, range), count: inResult)
            }
            start = range.end
        }
        try overlay.finish()
        let baseDigest = try asBase.finishAsText()
        let resultDigest = try asResult?.finishAsText()
        let overlaidDigest = try overlaid?.finishAsText()
        let tailDigest = try tail?.finishAsText()
        if hasResultSize, resultDigest ?? baseDigest == statement.result.digest { return .result }
        guard overlaidDigest ?? baseDigest == statement.result.digest else { return .other }
        // What is cut off has to be the base's, unless it is cut off already: behind the replica a
        // logical volume has zeros.
        if let tailDigest, size > result, tailDigest != statement.tail,
            !(hasResultSize && isTailZero)
        {
            return .other
        }
        if overlay.unproven > 0 {
            return .unproven(bytes: overlay.unproven, first: overlay.firstUnproven)
        }
        let isBase =
            statement.baseDigest == .sha256
            ? baseDigest == statement.base.digest : !overlay.sawResult
        return isBase ? .base : .between
    }

    /// SHA-256 of the first bytes of a device, in hexadecimal.
    package static func digest(
        of device: any BlockDevice, size: Int, unless isCancelled: () -> Bool
    ) throws(IOError) -> String {
        let windows = WindowStream(device, size: size)
        defer { windows.stop() }
        let digest = try RunningDigest()
        while let window = try windows.next() {
            if isCancelled() { throw DeltaReader.cancelled(device.name) }
            try digest.add(window.content, count: window.range.length)
        }
        return try digest.finishAsText()
    }
}

extension ByteRange {
    /// How many bytes of the range are below a limit.
    fileprivate func count(below limit: Int) -> Int { max(0, min(limit, end) - offset) }
}

extension WindowStream.Content {
    fileprivate func isZero(from start: Int, to end: Int) -> Bool {
        guard case .data(let bytes) = self else { return true }
        return BlockDevices.isZero(slice(bytes, start, end))
    }
}

extension RunningDigest {
    fileprivate func add(
        _ content: WindowStream.Content, from start: Int, to end: Int
    ) throws(IOError) {
        switch content {
        case .data(let bytes): try add(slice(bytes, start, end))
        case .zeros, .skipped: try addZeros(end - start)
        }
    }
}
