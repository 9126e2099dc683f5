// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import SystemPackage

/// The value of `errno`, valid right after a failed call.
package func currentErrno() -> Errno { Errno(rawValue: errno) }

/// Repeats a system call while a signal interrupts it.
///
/// This is the only EINTR loop, and the only place where -1 becomes an `Errno`. EBADF and EFAULT
/// are bugs of this program, so they trap.
package func retryingInterrupts<Result: FixedWidthInteger & SignedInteger>(
    _ call: () -> Result
) throws(Errno) -> Result {
    while true {
        let result = call()
        if result != -1 { return result }
        let code = currentErrno()
        if code == .interrupted { continue }
        precondition(code != .badFileDescriptor && code != .badAddress, "\(code)")
        Shortages.note(code)
        throw code
    }
}

/// Retries for half a second while another process holds a file for a moment.
///
/// Until its exec, a starting program has a copy of a descriptor that this process closed. udev
/// locks a device after a write.
package func waitingForHolders<Result, Failure: Error>(
    _ isHeld: (Failure) -> Bool, _ attempt: () throws(Failure) -> Result
) throws(Failure) -> Result {
    for _ in 0..<25 {
        do throws(Failure) { return try attempt() } catch {
            guard isHeld(error) else { throw error }
        }
        pause(for: .milliseconds(20))
    }
    return try attempt()
}
