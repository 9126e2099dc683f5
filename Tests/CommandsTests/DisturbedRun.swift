// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Runs the program slowly, with one thread, and disturbs it.
///
/// The program is stopped (SIGSTOP) until the disturbance is done, which may take longer than the run.
///
/// - Parameters:
///   - arguments: of the program.
///   - hasBegun: whether the run has written its first bytes.
///   - disturb: done once it has.
/// - Returns: what the program did.
/// - Throws: when it cannot be started, and what `disturb` throws.
func blkferry(
    slowly arguments: [String], once hasBegun: () throws -> Bool, _ disturb: () throws -> Void
) throws -> ProgramResult {
    // A busy machine may take long to stop it after its first writes.
    let limit = arguments.contains { $0.contains("://") } ? ["--bwlimit", "4M"] : []
    let run = try RunningProgram(slowReads(by: 16) + [program, "-c", "1"] + limit + arguments)
    while try !hasBegun() {
        guard run.isRunning else {
            Issue.record("it has ended before it was disturbed: \(try run.wait())")
            break
        }
        usleep(2_000)
    }
    run.signal(SIGSTOP)
    defer { run.signal(SIGCONT) }
    // A read that is being delayed still takes place.
    usleep(100_000)
    #expect(run.isRunning, "it has ended too early")
    try disturb()
    run.signal(SIGCONT)
    return try run.wait()
}

/// Whether a file is there and takes room on its file system.
func holdsData(_ path: String) -> Bool {
    var answer = stat()
    return stat(path, &answer) == 0 && answer.st_blocks > 1024
}
