// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication
internal import Glibc
internal import LinuxIO
internal import Synchronization

/// Watches over a run from a thread of its own: shows its progress and turns signals into an
/// orderly end.
///
/// The first of SIGINT, SIGTERM and SIGHUP ends the run at a window's boundary, the second ends the
/// program at once.
enum RunWatcher {
    /// Set before the watcher is woken, so that nobody else's signal ends the watch.
    private final class Flag: Sendable {
        let value = Atomic(false)
    }

    /// Tells the watcher that the run is over.
    private static let wakeUp = SIGUSR2

    /// Does work under watch.
    ///
    /// From now on the signals are blocked in this thread and all that it starts. One that is
    /// ignored, as nohup(1) has SIGHUP, stays ignored.
    ///
    /// - Parameters:
    ///   - run: cancelled on a signal.
    ///   - progress: shows how far the run is.
    ///   - target: what the user calls it.
    ///   - console: told of the signal.
    ///   - work: the run.
    /// - Returns: what the work returned.
    static func watch<Result>(
        _ run: Replication, _ progress: ProgressDisplay, target: String, _ console: Console,
        _ work: () -> Result
    ) -> Result {
        var blocked = waitedFor()
        pthread_sigmask(SIG_BLOCK, &blocked, nil)
        // A reader that went away makes write(2) fail; it must not end a run.
        signal(SIGPIPE, SIG_IGN)
        let isOver = Flag()
        let watcher = Threads.start(count: 1, orInline: false) { _ in
            wait(run, progress, target, console, isOver)
        }
        guard !watcher.isEmpty else {
            // No thread is to be had: without a watch a signal ends the program at once.
            pthread_sigmask(SIG_UNBLOCK, &blocked, nil)
            watcher.wait()
            return work()
        }
        let result = work()
        isOver.value.store(true, ordering: .releasing)
        // To the process: it is blocked everywhere, so it waits for the watcher to take it.
        kill(getpid(), wakeUp)
        watcher.wait()
        return result
    }

    private static func wait(
        _ run: Replication, _ progress: ProgressDisplay, _ target: String, _ console: Console,
        _ isOver: Flag
    ) {
        var display = progress
        var signals = waitedFor()
        while true {
            var timeout = timespec(tv_sec: 0, tv_nsec: 200_000_000)
            let signal =
                display.isShown
                ? sigtimedwait(&signals, nil, &timeout) : sigwaitinfo(&signals, nil)
            if signal == wakeUp {
                if isOver.value.load(ordering: .acquiring) { break }
                continue
            }
            if signal < 0 {
                if errno == EAGAIN { display.show(run.progress) }
                continue
            }
            if run.isCancelled {
                display.finish(run.progress)
                console.error(
                    "\(target): flush: not waited for, interrupted twice",
                    advice: "What was written may be lost; run it again.")
                exit(ExitStatus.interrupted.rawValue)
            }
            run.cancel()
            display.clear()
            console.status("blkferry: interrupted, finishing the windows in work\n")
        }
        display.finish(run.progress)
    }

    private static func waitedFor() -> sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for number in [SIGINT, SIGTERM, SIGHUP] {
            var action = sigaction()
            sigaction(number, nil, &action)
            if unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self) != 1 {
                sigaddset(&set, number)
            }
        }
        sigaddset(&set, wakeUp)
        return set
    }
}
