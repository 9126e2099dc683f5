// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Glibc

/// Finds the extents in which two windows differ: as a whole, then by region, then by block.
struct BlockComparison {
    /// `nil` for all zeros.
    typealias Side = UnsafeRawBufferPointer?

    let layout: BlockLayout

    /// Appends the extents that make the target equal to the source.
    ///
    /// - Parameter range: the place of the window on both devices.
    func differences(
        source: Side, target: Side, range: ByteRange, into extents: inout [Extent]
    ) {
        if areEqual(source, target, 0, range.length) { return }
        forEach(layout.region, in: 0, to: range.length) { region, regionEnd in
            if areEqual(source, target, region, regionEnd) { return }
            forEach(layout.block, in: region, to: regionEnd) { block, blockEnd in
                if areEqual(source, target, block, blockEnd) { return }
                append(block, blockEnd, of: range, kind(source, block, blockEnd), to: &extents)
            }
        }
    }

    /// Appends the whole source, except for zeros if the target has only zeros here.
    func everything(
        source: Side, range: ByteRange, targetIsZero: Bool, into extents: inout [Extent]
    ) {
        guard source != nil else {
            if !targetIsZero { append(0, range.length, of: range, .zero, to: &extents) }
            return
        }
        forEach(layout.block, in: 0, to: range.length) { block, blockEnd in
            let kind = kind(source, block, blockEnd)
            if kind == .zero && targetIsZero { return }
            append(block, blockEnd, of: range, kind, to: &extents)
        }
    }

    private func forEach(
        _ unit: Int, in start: Int, to end: Int, _ body: (_ start: Int, _ end: Int) -> Void
    ) {
        var offset = start
        while offset < end {
            let next = min(offset + unit, end)
            body(offset, next)
            offset = next
        }
    }

    private func areEqual(_ source: Side, _ target: Side, _ start: Int, _ end: Int) -> Bool {
        switch (source, target) {
        case (let source?, let target?):
            guard let first = source.baseAddress, let second = target.baseAddress else {
                return true
            }
            return memcmp(first + start, second + start, end - start) == 0
        case (let data?, nil), (nil, let data?):
            return isZero(UnsafeRawBufferPointer(rebasing: data[start..<end]))
        case (nil, nil):
            return true
        }
    }

    private func kind(_ source: Side, _ start: Int, _ end: Int) -> Extent.Kind {
        guard let source else { return .zero }
        return isZero(UnsafeRawBufferPointer(rebasing: source[start..<end])) ? .zero : .data
    }

    private func append(
        _ start: Int, _ end: Int, of window: ByteRange, _ kind: Extent.Kind,
        to extents: inout [Extent]
    ) {
        extents.append(
            joining: ByteRange(window.offset + start, to: window.offset + end), kind)
    }
}
