// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO

/// Does two things at once, the first in another thread if there is one.
func inParallel(
    _ first: () throws(IOError) -> Void, _ second: () throws(IOError) -> Void
) throws(IOError) {
    let failure = Guarded<IOError?>(nil)
    let result = withoutActuallyEscaping(first) { first in
        let work = Work(first)
        let thread = Threads.start(count: 1) { _ in
            do throws(IOError) { try work.body() } catch { failure.withLock { $0 = error } }
        }
        let result = Result { () throws(IOError) in try second() }
        thread.wait()
        return result
    }
    try result.get()
    if let error = failure.withLock({ $0 }) { throw error }
}

/// It is safe to send, because the caller waits for the thread, and both work on other objects.
private final class Work: @unchecked Sendable {
    let body: () throws(IOError) -> Void
    init(_ body: @escaping () throws(IOError) -> Void) { self.body = body }
}
