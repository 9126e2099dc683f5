// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Seconds since 1970 for `2027-01-31` (UTC) or `2027-01-31T18:30:00Z` (RFC 3339), from 1970 on.
package func seconds(ofDate text: String) throws(WireError) -> Int {
    let wrong = WireError("\(text): not a date such as 2027-01-31 or 2027-01-31T18:30:00Z")
    let parts = text.split(separator: "T", maxSplits: 1, omittingEmptySubsequences: false)
    guard let first = parts.first,
        let day = numbers(first, separator: "-", digits: [4, 2, 2]),
        let days = daysSince1970(day[0], day[1], day[2])
    else { throw wrong }
    guard parts.count == 2 else { return days * 86_400 }
    guard parts[1].last == "Z",
        let time = numbers(parts[1].dropLast(), separator: ":", digits: [2, 2, 2]),
        time[0] < 24, time[1] < 60, time[2] < 60
    else { throw wrong }
    return days * 86_400 + time[0] * 3600 + time[1] * 60 + time[2]
}

private func numbers(_ text: Substring, separator: Character, digits: [Int]) -> [Int]? {
    let parts = text.split(separator: separator, omittingEmptySubsequences: false)
    guard parts.map(\.utf8.count) == digits else { return nil }
    let isDigit = { (byte: UInt8) in (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
    guard parts.allSatisfy({ $0.utf8.allSatisfy(isDigit) }) else { return nil }
    return parts.compactMap { Int($0) }
}

/// Gregorian; `nil` for a day that does not exist.
private func daysSince1970(_ year: Int, _ month: Int, _ day: Int) -> Int? {
    let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
    let lengths = [31, isLeap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    guard year >= 1970, (1...12).contains(month), (1...lengths[month - 1]).contains(day) else {
        return nil
    }
    let before = year - 1
    let leapDays = before / 4 - before / 100 + before / 400 - 477
    return (year - 1970) * 365 + leapDays + lengths[..<(month - 1)].reduce(0, +) + day - 1
}
