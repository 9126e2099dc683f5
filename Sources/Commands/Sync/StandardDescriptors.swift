// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc

/// Standard input, output and error, which the caller may have closed.
enum StandardDescriptors {
    /// Opens something harmless for each closed one; `false` if that fails.
    ///
    /// Otherwise a device would get that number, and a message would be written into it.
    static func occupy() -> Bool {
        for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) == -1 {
            // Each call takes the lowest free number. A chroot may lack /dev/null or have a file of
            // that name, and a sandbox may forbid memory files, but every process has a root
            // directory.
            guard
                [openNull, openMemory, openRoot].contains(where: { open in
                    let opened = open()
                    // memfd_create(2) sets the close-on-exec flag, but programs inherit these
                    // three.
                    return opened == descriptor && fcntl(opened, F_SETFD, 0) == 0
                })
            else { return false }
        }
        return true
    }

    /// Redirects a descriptor to something harmless; `false` if that fails.
    @discardableResult
    static func silence(_ descriptor: Int32) -> Bool {
        for open in [openNull, openMemory, openRoot] {
            let file = open()
            guard file >= 0 else { continue }
            let isRedirected = dup2(file, descriptor) == descriptor
            close(file)
            return isRedirected
        }
        return false
    }

    private static func openNull() -> Int32 {
        let file = open("/dev/null", O_RDWR | O_NONBLOCK | O_NOCTTY)
        var answer = stat()
        guard file >= 0, fstat(file, &answer) == 0 else { return -1 }
        if answer.st_mode & S_IFMT == S_IFCHR { return file }
        close(file)
        return -1
    }

    /// A memory file accepts writes; a read finds its end.
    private static func openMemory() -> Int32 { clb_memory_file("closed") }

    /// The root directory opened with O_PATH can be neither read nor written.
    private static func openRoot() -> Int32 { open("/", clb_O_PATH) }
}
