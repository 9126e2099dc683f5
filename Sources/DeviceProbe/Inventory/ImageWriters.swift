// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO

/// Finds processes that have an image open for writing, or the file behind a loop device.
///
/// Linux AIO (io_submit(2)) writes without an event of fanotify(7) until the program closes the
/// file.
struct ImageWriters: Sendable {
    private let file: FileIdentity
    private let path: String
    private let proc: String

    init(of file: FileIdentity, path: String, _ view: SystemView) {
        self.file = file
        self.path = (try? canonicalPath(path)) ?? path
        proc = view.proc
    }

    /// Whether a process other than this one has it open for writing now; `false` if this process
    /// may not see the files of the other one.
    ///
    /// A forked process has copies of our descriptors until it has executed its program, and looks
    /// like another program shortly before it closes them. So a writer must stay for some looks.
    /// The kernel reports one that closes the image meanwhile (`WriteWatch`).
    func isAny() -> Bool {
        let deadline = ContinuousClock.now + .seconds(5)
        var looks = 0
        while let writer = strongest() {
            if writer == .running { looks += 1 }
            if looks > 5 || ContinuousClock.now > deadline { return true }
            pause(for: .milliseconds(10))
        }
        return false
    }

    private enum Writer {
        /// It can write no more, but may not have closed the image yet.
        case ending
        case running
    }

    /// Looks once; `nil` if no other process has the image open for writing.
    private func strongest() -> Writer? {
        let known = proc == SystemView().proc ? PrivilegedCalls.openFiles() : nil
        // In a /proc of another PID namespace this process has another id.
        let own = symbolicLinkTarget("\(proc)/self") ?? "\(getpid())"
        var found: Writer?
        for process in namesInDirectory(proc) where Int(process) != nil && process != own {
            let isWriter =
                if let known {
                    known[process]?.writtenPaths.contains(path) ?? false
                } else {
                    namesInDirectory("\(proc)/\(process)/fd").contains { isOpen($0, in: process) }
                }
            guard isWriter, !Claimants.isOurOwnCopy(process, in: proc), !isTwin(process) else {
                continue
            }
            guard isEnding(process) else { return .running }
            found = .ending
        }
        return found
    }

    /// Whether a process has ended or is ending.
    ///
    /// It gives its memory up before its files, which takes a while for a copy of a large process.
    /// Before both, the kernel sets `PF_EXITING` (linux/sched.h).
    private func isEnding(_ process: String) -> Bool {
        ProcessStatus(process, in: proc).flags.map { $0 & 0x4 != 0 } ?? true
    }

    /// Whether a process has the program and the command line of this one.
    ///
    /// It may wait for a device in place of this one (`clb_fork_orphan`), and is no child of this
    /// one. Another run with the same arguments would have to lock the image.
    private func isTwin(_ process: String) -> Bool {
        guard let program = symbolicLinkTarget("\(proc)/\(process)/exe"),
            program == symbolicLinkTarget("\(proc)/self/exe"),
            let command = try? smallFileBytes("\(proc)/\(process)/cmdline")
        else { return false }
        return command == (try? smallFileBytes("\(proc)/self/cmdline"))
    }

    /// Compares the name or the inode number first: stat(2) on a file of a dead server would never
    /// return.
    ///
    /// Source: proc_pid_fdinfo(5); `ino` is there since Linux 5.14.
    private func isOpen(_ descriptor: String, in process: String) -> Bool {
        let link = "\(proc)/\(process)/fd/\(descriptor)"
        guard let target = symbolicLinkTarget(link), target.hasPrefix("/"),
            let fields = descriptorFields(descriptor, of: process, in: proc),
            let flags = fields["flags"].flatMap({ Int32($0, radix: 8) }),
            flags & O_ACCMODE != O_RDONLY,
            fields["ino"].flatMap({ UInt64($0) }) == file.inode
                || lastComponent(target).isSame(as: lastComponent(path))
        else { return false }
        return (try? FileStatus(path: link)).map { FileIdentity($0) } == file
    }
}
