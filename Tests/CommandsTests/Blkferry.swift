// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Runs the program to its end.
func blkferry(_ arguments: String..., environment: [String: String] = [:]) throws -> ProgramResult {
    try RunningProgram([program] + arguments, environment: environment).wait()
}

/// The program with one thread, each of whose reads takes 4 ms longer, so that there is time to
/// disturb it; its process is the one that is started, the tracer is beside it.
func slowly(_ arguments: String...) -> [String] {
    slowReads(by: 4) + [program, "-c", "1"] + arguments
}

/// Goes before a program, each of whose reads then takes some milliseconds longer.
func slowReads(by milliseconds: Int) -> [String] {
    [
        "strace", "-D", "-f", "-o", "/dev/null", "-e", "trace=pread64", "-e",
        "inject=pread64:delay_enter=\(milliseconds * 1000)",
    ]
}

/// Runs the program with `--json`, and reads what it prints.
func blkferryJSON(_ arguments: String...) throws -> (result: ProgramResult, json: Record) {
    let result = try RunningProgram([program] + arguments + ["--json"]).wait()
    let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
    return (result, Record(try #require(object as? [String: Any])))
}

/// A JSON object.
struct Record {
    private let values: [String: Any]
    init(_ values: [String: Any]) { self.values = values }

    func int(_ key: String) -> Int? { values[key] as? Int }
    func double(_ key: String) -> Double? { values[key] as? Double }
    func bool(_ key: String) -> Bool? { values[key] as? Bool }
    func string(_ key: String) -> String? { values[key] as? String }
    func strings(_ key: String) -> [String]? { values[key] as? [String] }
    func record(_ key: String) -> Record? { (values[key] as? [String: Any]).map(Record.init) }
    func records(_ key: String) -> [Record]? {
        (values[key] as? [[String: Any]])?.map(Record.init)
    }
}

/// Fills a device or file with bytes that a seed determines, past the page cache.
func fill(_ path: String, seed: UInt64, size: Int, offset: Int = 0) throws {
    var random = SeededGenerator(seed: seed)
    try overwrite(path, random.bytes(size), at: offset)
}

extension ScratchDirectory {
    /// Makes a file that `fill` fills, and returns its path.
    func filledFile(_ name: String, size: Int, seed: UInt64) throws -> String {
        let path = try sparseFile(name, size: size)
        try fill(path, seed: seed, size: size)
        return path
    }
}

/// Writes bytes into a device or file and waits until they are there.
func overwrite(_ path: String, _ bytes: [UInt8], at offset: Int) throws {
    let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
    try file.seek(toOffset: UInt64(offset))
    try file.write(contentsOf: Data(bytes))
    try file.synchronize()
    try file.close()
}

/// Whether two devices or files hold the same bytes.
func areEqual(_ first: String, _ second: String) throws -> Bool {
    try run("cmp", first, second).status == 0
}
