// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO

/// The limits of an image's file system: the largest file, and the free space.
struct ImageRoom {
    private let name: String
    /// Bytes of the largest file; `nil` if unknown.
    private let largestFile: Int?
    /// Bytes; `nil` if unknown.
    private let free: Int?

    init(ofImage path: String, name: String) {
        var largest: Int?
        if let file = try? OwnedDescriptor.open(path, flags: O_RDONLY | O_NONBLOCK) {
            largest = Self.largestOffset(of: file)
        }
        self.init(name, largestFile: largest, path)
    }

    init(inDirectory path: String, name: String) {
        // Asks with a file that has no name, so that no program sees it. Not every file system
        // supports that; of those that do not, FAT has the limit that users meet.
        if let file = try? OwnedDescriptor.open(
            path, flags: O_WRONLY | clb_O_TMPFILE, mode: 0o600)
        {
            self.init(name, largestFile: Self.largestOffset(of: file), path)
        } else {
            self.init(name, largestFile: clb_is_fat(path) ? Self.largestOfFAT : nil, path)
        }
    }

    /// FAT stores sizes in 32 bits.
    private static let largestOfFAT = Int(UInt32.max)

    private init(_ name: String, largestFile: Int?, _ path: String) {
        self.name = name
        self.largestFile = largestFile
        var status = statvfs()
        guard statvfs(path, &status) == 0, status.f_blocks > 0 else {
            free = nil
            return
        }
        // The superuser may use reserved blocks.
        let blocks = geteuid() == 0 ? status.f_bfree : status.f_bavail
        let (bytes, isTooMany) = Int(clamping: blocks).multipliedReportingOverflow(
            by: Int(clamping: status.f_frsize))
        free = isTooMany ? nil : bytes
    }

    /// The largest offset, and so the largest file of the file system; changes nothing.
    ///
    /// The corresponding C function is `lseek`, which fails with EINVAL beyond it.
    private static func largestOffset(of file: borrowing OwnedDescriptor) -> Int? {
        let descriptor = file.rawValue
        func isPossible(_ offset: Int) -> Bool { lseek(descriptor, off_t(offset), SEEK_SET) >= 0 }
        guard isPossible(1 << 20) else { return nil }
        var (possible, impossible) = (1 << 20, Int.max)
        if isPossible(impossible) { return impossible }
        while impossible - possible > 1 {
            let middle = possible + (impossible - possible) / 2
            if isPossible(middle) { possible = middle } else { impossible = middle }
        }
        return possible
    }

    /// Refuses an image of so many bytes that can never be written to its end.
    func refusal(ofSize size: Int, growing: Bool) -> IOError? {
        if growing, let largestFile, size > largestFile {
            return .refusal(
                .size, name,
                "it would have \(size) bytes, and its file system takes files of \(largestFile) bytes "
                    + "at most",
                advice: "Put the image on a file system that takes larger files.")
        }
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit) == 0,
            limit.rlim_cur < UInt64(size)
        else { return nil }
        return .refusal(
            .size, name,
            "it would have \(size) bytes, and this process may write files of \(limit.rlim_cur) bytes "
                + "at most",
            advice: "Raise the limit of file size: ulimit -f.")
    }

    /// Warns if the free space may not be enough; `allocated` is what the image has, in bytes.
    func warnings(for source: SourceFacts, allocated: Int) -> [String] {
        let wanted = (source.dataBytes ?? source.size) - allocated
        guard let free, wanted > free else { return [] }
        return [
            "\(name): its file system has \(free) bytes free, and up to \(wanted) more may be needed"
        ]
    }
}
