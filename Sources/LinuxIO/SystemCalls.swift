// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import SystemPackage

/// The system's error number as it stands right after a failed call.
package func currentErrno() -> Errno { Errno(rawValue: errno) }

/// Repeats a system call while a signal interrupts it.
///
/// This is the only EINTR loop, and the only place where a result of -1 becomes an `Errno`.
/// EBADF and EFAULT are bugs of this program, never conditions of the world, so they trap.
///
/// - Parameter call: the system call; it returns -1 and sets `errno` when it fails.
/// - Returns: what the call returned.
/// - Throws: the `Errno` of the failed call.
package func retryingInterrupts<Result: FixedWidthInteger & SignedInteger>(
    _ call: () -> Result
) throws(Errno) -> Result {
    while true {
        let result = call()
        if result != -1 { return result }
        let code = currentErrno()
        if code == .interrupted { continue }
        precondition(code != .badFileDescriptor && code != .badAddress, "\(code)")
        throw code
    }
}

/// Tries again, for half a second, what fails because somebody else holds it for a moment: a program
/// that is being started has, until its exec, a copy of what another thread has closed just now, and
/// udev locks a device that was written.
///
/// - Parameters:
///   - isHeld: whether a failure says that somebody holds it, and may soon not.
///   - attempt: what is tried.
/// - Returns: what the attempt returned that did not fail.
/// - Throws: the last failure.
package func waitingOutHolders<Result, Failure: Error>(
    _ isHeld: (Failure) -> Bool, _ attempt: () throws(Failure) -> Result
) throws(Failure) -> Result {
    for _ in 0..<25 {
        do throws(Failure) { return try attempt() } catch {
            guard isHeld(error) else { throw error }
        }
        usleep(20_000)
    }
    return try attempt()
}
