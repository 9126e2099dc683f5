// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Two images, a place for journals on another file system, and a state directory of its own.
struct UndoRig {
    let scratch: ScratchDirectory
    let memory: ScratchDirectory
    let source: String
    let target: String
    let journal: String
    let size: Int

    init(size: Int = 5 << 20) throws {
        self.size = size
        scratch = try ScratchDirectory()
        memory = try ScratchDirectory(in: "/dev/shm")
        source = try scratch.filledFile("source", size: size, seed: 1)
        target = try scratch.filledFile("target", size: size, seed: 2)
        journal = memory.file("undo")
        // A hole, which stays one.
        try must("fallocate", "-p", "-o", "1M", "-l", "1M", target)
    }

    var environment: [String: String] { ["STATE_DIRECTORY": scratch.file("state")] }

    /// Keeps what a device or file has now, and returns the path of the copy.
    func copy(of path: String, as name: String = "copy") throws -> String {
        let copy = scratch.file(name)
        try must("dd", "status=none", "bs=1M", "conv=sparse", "if=\(path)", "of=\(copy)")
        try must("truncate", "-r", path, copy)
        return copy
    }

    func blkferry(_ arguments: String...) throws -> ProgramResult {
        try RunningProgram([program] + arguments, environment: environment).wait()
    }

    func blkferryJSON(_ arguments: String...) throws -> (ProgramResult, Record) {
        let result = try RunningProgram(
            [program] + arguments + ["--json"], environment: environment
        ).wait()
        let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
        return (result, Record(try #require(object as? [String: Any])))
    }

    /// The program under strace, which disturbs a system call.
    ///
    /// - Parameters:
    ///   - how: as after `inject=CALL:`.
    ///   - path: counts only calls on this file.
    func disturbed(
        _ call: String, _ how: String, of path: String? = nil, _ arguments: String...
    ) throws -> ProgramResult {
        let filter = path.map { ["-P", $0] } ?? []
        return try RunningProgram(
            ["strace", "-f", "-o", "/dev/null"] + filter
                + ["-e", "trace=\(call)", "-e", "inject=\(call):\(how)", program] + arguments,
            environment: environment
        ).wait()
    }
}
