// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Initialized memory of a fixed size.
final class Scratch<Element: BitwiseCopyable> {
    let elements: UnsafeMutableBufferPointer<Element>
    var bytes: UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(elements) }

    init(count: Int, of element: Element) {
        elements = .allocate(capacity: count)
        elements.initialize(repeating: element)
    }

    deinit { elements.deallocate() }
}
