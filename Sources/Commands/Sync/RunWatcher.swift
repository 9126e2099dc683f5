// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication
internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import LogicalVolumes
internal import Synchronization

/// Watches a run from a thread of its own: shows its progress, and handles signals.
///
/// The first SIGINT, SIGTERM or SIGHUP ends the run at the end of the current windows. The second
/// one ends the program at once.
enum RunWatcher {
    /// Set before the wake-up signal, so that the same signal from another process does not end the
    /// watch.
    private final class Flag: Sendable {
        let value = Atomic(false)
    }

    struct Messages: Sendable {
        var first = "interrupted, finishing the windows in work"
        /// Object, operation and reason.
        var second: String
        var advice = "What was written may be lost; run it again."
    }

    /// The signal that ends the watch.
    private static let wakeUp = SIGUSR2

    /// Runs work under watch.
    ///
    /// The signals stay blocked in this thread and in all threads that it starts, until
    /// `endAtSignals`. An ignored signal stays ignored, such as SIGHUP under nohup(1).
    ///
    /// - Parameter messages: the texts for signals; by default those of a sync.
    static func watch<Result>(
        _ control: Replication.Control, _ progress: ProgressDisplay, target: String,
        _ console: Console, messages: Messages? = nil, _ work: () -> Result
    ) -> Result {
        let messages =
            messages
            ?? Messages(second: "\(target): flush: interrupted twice before it had finished")
        var blocked = waitedFor()
        pthread_sigmask(SIG_BLOCK, &blocked, nil)
        // If the reader of a pipe is gone, write(2) fails. The signal must not end the run.
        signal(SIGPIPE, SIG_IGN)
        let isDone = Flag()
        let watcher = Threads.start(count: 1, orInline: false) { _ in
            wait(control, progress, messages, console, isDone)
        }
        guard !watcher.isEmpty else {
            // Without a watcher thread a signal ends the program at once.
            pthread_sigmask(SIG_UNBLOCK, &blocked, nil)
            watcher.wait()
            return work()
        }
        let result = work()
        isDone.value.store(true, ordering: .releasing)
        // The signal is blocked in every thread, so it stays pending until the watcher takes it.
        kill(getpid(), wakeUp)
        watcher.wait()
        return result
    }

    /// Lets a signal end the program at once, as before the watch.
    ///
    /// For the time after the work and its cleanup, when the program may wait for a reader of its
    /// result.
    static func endAtSignals() {
        var signals = waitedFor()
        // The wake-up signal stays blocked, since by default it kills the process.
        sigdelset(&signals, wakeUp)
        // A signal that came before the end must not turn a finished run into an interrupted one.
        var noTime = timespec()
        while sigtimedwait(&signals, nil, &noTime) > 0 {}
        pthread_sigmask(SIG_UNBLOCK, &signals, nil)
    }

    private static func wait(
        _ control: Replication.Control, _ progress: ProgressDisplay, _ messages: Messages,
        _ console: Console, _ isDone: Flag
    ) {
        var display = progress
        // A thread that waits for a reader would not see the second signal.
        var console = console
        console.waitsForReader = false
        var signals = waitedFor()
        // Other code may also cancel the run, which does not count as a first signal.
        var isInterrupted = false
        while true {
            var timeout = timespec(tv_sec: 0, tv_nsec: 200_000_000)
            let signal =
                display.isShown
                ? sigtimedwait(&signals, nil, &timeout) : sigwaitinfo(&signals, nil)
            if signal == wakeUp {
                if isDone.value.load(ordering: .acquiring) { break }
                continue
            }
            if signal < 0 {
                if errno == EAGAIN { display.show(control.progress) }
                continue
            }
            if isInterrupted {
                display.finish(control.progress)
                console.error(messages.second, advice: messages.advice)
                // A pool has room for only one metadata snapshot, so none may stay behind.
                MetadataSnapshots.shared.releaseAll()
                ExitStatus.interrupted.endProgram()
            }
            isInterrupted = true
            control.cancel()
            display.clear()
            console.status("blkferry: \(messages.first)\n")
        }
        display.finish(control.progress)
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
