// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

/// The text of a mapfile.
extension RescueMap {
    /// Why a text is no mapfile.
    package struct Fault: Error, Hashable, Sendable {
        /// From 1.
        package var line: Int
        package var reason: String
    }

    /// Bytes of a mapfile at most: about a million areas.
    package static let longestText = 64 << 20

    /// The start of comments that blkferry writes and reads; those of ddrescue are dropped.
    private static let noteMark = " blkferry: "

    /// Reads a mapfile; bytes before its first area are untried.
    ///
    /// Source: "Mapfile structure" in the manual of GNU ddrescue 1.27.
    package init(_ text: some Sequence<UInt8>) throws(Fault) {
        var areas: [Area] = []
        var state: (position: Int, phase: Phase, pass: Int)?
        var notes: [String] = []
        var number = 0
        for line in Array(text).split(
            separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        {
            number += 1
            let fault = { (reason: String) in Fault(line: number, reason: reason) }
            if let note = Self.note(in: line) { notes.append(note) }
            let words = Self.words(of: line)
            if words.isEmpty { continue }
            guard state != nil else {
                state = try Self.state(words, fault)
                continue
            }
            let area = try Self.area(words, fault)
            if let last = areas.last, last.range.end != area.range.offset {
                throw fault(
                    last.range.end < area.range.offset
                        ? "there is a gap before this area" : "this area overlaps the one before")
            }
            areas.append(area)
        }
        guard let state else {
            throw Fault(line: number, reason: "the line of the state is missing")
        }
        self.init(areas: areas)
        (position, phase, pass) = state
        self.notes = notes
    }

    /// The comment that blkferry has written.
    private static func note(in line: ArraySlice<UInt8>) -> String? {
        guard line.first == UInt8(ascii: "#") else { return nil }
        let text = line.dropFirst()
        guard text.starts(with: noteMark.utf8) else { return nil }
        var rest = text.dropFirst(noteMark.utf8.count)
        // Of an editor that ends lines with CR and LF.
        if rest.last == UInt8(ascii: "\r") { rest.removeLast() }
        let note = rest.map { $0 < 0x20 ? UInt8(ascii: "?") : $0 }
        return String(decoding: note, as: UTF8.self)
    }

    /// The words before a comment.
    private static func words(of line: ArraySlice<UInt8>) -> [ArraySlice<UInt8>] {
        let blanks = Set(" \t\r\u{B}\u{C}".utf8)
        let words = line.split { blanks.contains($0) }
        return Array(words.prefix { $0.first != UInt8(ascii: "#") })
    }

    private static func state(
        _ words: [ArraySlice<UInt8>], _ fault: (String) -> Fault
    ) throws(Fault) -> (position: Int, phase: Phase, pass: Int) {
        guard (2...3).contains(words.count) else {
            throw fault("it should have a position, a status and a pass")
        }
        guard let position = number(words[0]) else { throw fault("the position is no number") }
        guard words[1].count == 1, let phase = words[1].first.flatMap(Phase.init(rawValue:)) else {
            throw fault("the status is unknown")
        }
        guard words.count == 3 else { return (position, phase, 1) }
        guard let pass = Self.digits(words[2], base: 10), (1...mostPasses).contains(pass) else {
            throw fault("the pass is no number from 1")
        }
        return (position, phase, pass)
    }

    /// More than anybody waits for.
    private static let mostPasses = 1_000_000_000

    private static func area(
        _ words: [ArraySlice<UInt8>], _ fault: (String) -> Fault
    ) throws(Fault) -> Area {
        guard words.count == 3 else {
            throw fault("it should have a position, a size and a status")
        }
        guard let offset = number(words[0]), let length = number(words[1]) else {
            throw fault("position or size is no number")
        }
        // Neither number is above the maximum, so their sum cannot overflow.
        guard length > 0, offset + length <= Geometry.maximumSize else {
            throw fault("the size of the area cannot be")
        }
        guard words[2].count == 1, let status = words[2].first.flatMap(Status.init(rawValue:))
        else { throw fault("the status is unknown") }
        return Area(ByteRange(offset: offset, length: length), status)
    }

    /// A number as in C++: `0x` for hexadecimal, `0` for octal, else decimal; at most
    /// `Geometry.maximumSize`.
    private static func number(_ word: ArraySlice<UInt8>) -> Int? {
        guard word.first == UInt8(ascii: "0"), word.count > 1 else { return digits(word, base: 10) }
        let second = word[word.startIndex + 1]
        guard second == UInt8(ascii: "x") || second == UInt8(ascii: "X") else {
            return digits(word.dropFirst(), base: 8)
        }
        return digits(word.dropFirst(2), base: 16)
    }

    private static func digits(_ word: ArraySlice<UInt8>, base: Int) -> Int? {
        guard !word.isEmpty else { return nil }
        var value = 0
        for byte in word {
            let (product, isTooLarge) = value.multipliedReportingOverflow(by: base)
            guard let digit = Character(UnicodeScalar(byte)).hexDigitValue, digit < base,
                !isTooLarge, product <= Geometry.maximumSize - digit
            else { return nil }
            value = product + digit
        }
        return value
    }

    /// The mapfile, which ddrescue, ddrescuelog and ddrescueview read.
    package var text: [UInt8] {
        var text = Array("# Mapfile. Created by blkferry for GNU ddrescue\n".utf8)
        for note in notes {
            text += "#\(Self.noteMark)".utf8
            // A note is one line.
            text += note.utf8.map { $0 < 0x20 ? UInt8(ascii: "?") : $0 }
            text.append(UInt8(ascii: "\n"))
        }
        text += "# current_pos  current_status  current_pass\n".utf8
        text += Self.hexadecimal(position)
        text += [0x20, 0x20, 0x20, 0x20, 0x20, phase.rawValue]
        text += "               \(pass)\n#      pos        size  status\n".utf8
        for area in areas {
            text += Self.hexadecimal(area.range.offset)
            text += [0x20, 0x20]
            text += Self.hexadecimal(area.range.length)
            text += [0x20, 0x20, area.status.rawValue, 0x0A]
        }
        return text
    }

    private static func hexadecimal(_ value: Int) -> [UInt8] {
        let digits = String(value, radix: 16, uppercase: true)
        return Array("0x\(String(repeating: "0", count: max(0, 8 - digits.count)))\(digits)".utf8)
    }
}
