// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Whether blkferry could have given this name, without its group, to a snapshot of a source:
/// `root.blkferry.20261123T031500.1234`, with the time and a process.
package func isNameOfOwnSnapshot(_ name: String) -> Bool {
    let parts = name.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count >= 4, parts[parts.count - 3] == "blkferry" else { return false }
    func isNumber(_ text: Substring) -> Bool {
        !text.isEmpty && text.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")) ~= $0 }
    }
    let moment = parts[parts.count - 2].split(separator: "T", omittingEmptySubsequences: false)
    return !name.hasPrefix(".") && isNumber(parts[parts.count - 1]) && moment.count == 2
        && moment.allSatisfy(isNumber) && moment[0].utf8.count == 8 && moment[1].utf8.count == 6
}
