// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import Glibc

/// Asks the user whether the target may be changed; throws a refusal without a yes.
///
/// Neither question nor answer is needed if `BLKFERRY_BENCHMARK` or `PDIFFCOPY_BENCHMARK` is
/// `allowed`.
func askPermission(source: String, target: String, _ console: Console) throws(CommandFailure) {
    for variable in ["BLKFERRY_BENCHMARK", "PDIFFCOPY_BENCHMARK"] {
        if getenv(variable).map({ String(cString: $0) }) == "allowed" { return }
    }
    func refusal(_ reason: String) -> CommandFailure {
        var failure = CommandFailure(.refused, "\(target): refused: \(reason)")
        failure.cause = "not-allowed"
        return failure
    }
    guard isatty(STDIN_FILENO) == 1 else {
        throw refusal(
            "a benchmark changes it, and there is no terminal to ask on; BLKFERRY_BENCHMARK=allowed "
                + "in the environment permits it")
    }
    console.status(
        "This makes \(printable(target)) equal to \(printable(source)), then changes it and then "
            + "restores it, again and again. Go on? [y/N] ")
    let answer = readLine()?.lowercased()
    if answer == nil { console.status("\n") }
    guard answer == "y" || answer == "yes" else {
        throw refusal("a benchmark changes it, and that was not permitted")
    }
}
