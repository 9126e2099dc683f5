// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser

/// A share in percent as the user writes it: `50`, `12.5`, `50%`.
struct Percentage: Hashable, Sendable {
    /// 0 to 100.
    var value: Double
}

extension Percentage: ExpressibleByArgument {
    init?(argument: String) {
        let number = argument.last == "%" ? argument.dropLast() : argument[...]
        guard number.allSatisfy({ $0.isASCII && ($0.isNumber || $0 == ".") }),
            let value = Double(number), (0...100).contains(value)
        else { return nil }
        self.value = value
    }
}
