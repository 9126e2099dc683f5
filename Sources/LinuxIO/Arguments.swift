// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock

/// The arguments from main, without the program's name; `nil` if one is not UTF-8.
///
/// Repaired to UTF-8 it would name another file. Swift's `CommandLine` would need
/// /proc/self/cmdline.
package func programArguments() -> [String]? {
    var words: UnsafePointer<UnsafeMutablePointer<CChar>?>?
    let count = Int(clb_arguments(&words))
    var arguments: [String] = []
    for index in 1..<max(1, count) {
        guard let word = words?[index], let text = String(validatingCString: word) else {
            return nil
        }
        arguments.append(text)
    }
    return arguments
}
