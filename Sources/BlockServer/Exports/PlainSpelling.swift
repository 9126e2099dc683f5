// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// A device's name without empty components and `.`, so that all spellings of a path are equal.
///
/// It only tells devices apart and finds none. Other names of a device, such as tags and links,
/// have a spelling of their own.
func plainSpelling(of name: String) -> String {
    // Splits bytes, as the kernel does: as characters, a combining mark would hide a slash.
    name.utf8.split(separator: UInt8(ascii: "/"))
        .filter { !$0.elementsEqual(".".utf8) }
        .map { String(decoding: $0, as: UTF8.self) }
        .joined(separator: "/")
}
