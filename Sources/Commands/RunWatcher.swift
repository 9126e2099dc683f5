// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication
internal import Glibc
internal import LinuxIO
internal import LogicalVolumes
internal import SyncEngine
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

    /// What is said about signals.
    struct Messages: Sendable {
        var first = "interrupted, finishing the windows in work"
        /// Object, operation and reason.
        var second: String
        var advice = "What was written may be lost; run it again."
    }

    /// Tells the watcher that the run is over.
    private static let wakeUp = SIGUSR2

    /// Does work under watch.
    ///
    /// From now on the signals are blocked in this thread and all that it starts. One that is
    /// ignored, as nohup(1) has SIGHUP, stays ignored.
    ///
    /// - Parameters:
    ///   - control: cancelled on a signal.
    ///   - progress: shows how far the run is.
    ///   - target: what the user calls it.
    ///   - console: told of the signal.
    ///   - messages: what it is told; by default as suits a sync.
    ///   - work: the run.
    /// - Returns: what the work returned.
    static func watch<Result>(
        _ control: RunControl, _ progress: ProgressDisplay, target: String, _ console: Console,
        messages: Messages? = nil, _ work: () -> Result
    ) -> Result {
        let messages =
            messages ?? Messages(second: "\(target): flush: not waited for, interrupted twice")
        var blocked = waitedFor()
        pthread_sigmask(SIG_BLOCK, &blocked, nil)
        // A reader that went away makes write(2) fail; it must not end a run.
        signal(SIGPIPE, SIG_IGN)
        let isOver = Flag()
        let watcher = Threads.start(count: 1, orInline: false) { _ in
            wait(control, progress, messages, console, isOver)
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
        _ control: RunControl, _ progress: ProgressDisplay, _ messages: Messages,
        _ console: Console, _ isOver: Flag
    ) {
        var display = progress
        var signals = waitedFor()
        // Others may cancel the run as well; that is no first signal.
        var isInterrupted = false
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
                if errno == EAGAIN { display.show(Replication.Progress(control.progress)) }
                continue
            }
            if isInterrupted {
                display.finish(Replication.Progress(control.progress))
                console.error(messages.second, advice: messages.advice)
                // A pool has room for one, for everybody.
                MetadataSnapshots.shared.releaseAll()
                exit(ExitStatus.interrupted.rawValue)
            }
            isInterrupted = true
            control.cancel()
            display.clear()
            console.status("blkferry: \(messages.first)\n")
        }
        display.finish(Replication.Progress(control.progress))
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
