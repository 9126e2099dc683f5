// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import CLinuxBlock
internal import Glibc
internal import LinuxIO

/// Restores the page cache of a device after libblkid has read through it.
///
/// libblkid reads near the start and the end of its range. There this type notes the cached pages
/// before, compares them afterwards (mincore(2), which every kernel has), and drops the new ones.
/// If cachestat(2) reports that nothing was cached before, it drops everything.
struct PageCacheKeeper: ~Copyable {
    private let descriptor: Int32
    private let wasEmpty: Bool
    private let before: [Residency]

    /// Bytes that are watched at each end.
    ///
    /// libblkid's farthest fixed places are those of ZFS and VMFS, 1 to 2 MiB in. NTFS, exFAT and
    /// HFS+ have theirs anywhere, and only the check for an empty cache helps there.
    private static let watched = 8 << 20

    /// - Parameter range: bytes of the device that will be probed.
    init(_ descriptor: Int32, probing range: ByteRange) {
        self.descriptor = descriptor
        var pages: UInt64 = 0
        wasEmpty = clb_cached_pages(descriptor, 0, 0, &pages) == 0 && pages == 0
        before =
            wasEmpty
            ? [] : Self.ends(of: range).compactMap { Residency(descriptor, $0) }
    }

    /// Drops the pages that were cached since.
    consuming func restore() {
        if wasEmpty { _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) }
        for old in before {
            guard let new = Residency(descriptor, old.range) else { continue }
            for run in new.runs(notIn: old) {
                _ = posix_fadvise(
                    descriptor, off_t(run.offset), off_t(run.length), POSIX_FADV_DONTNEED)
            }
        }
    }

    /// The head and the tail of a range, in whole pages.
    private static func ends(of range: ByteRange) -> [ByteRange] {
        let start = range.offset / pageSize * pageSize
        // At the very end of the largest possible file, the last page is left out.
        let end =
            min(range.end, .max - pageSize) / pageSize * pageSize
            + (range.end % pageSize > 0 ? pageSize : 0)
        guard end - start > 2 * watched else { return [ByteRange(start, to: end)] }
        return [
            ByteRange(offset: start, length: watched), ByteRange(end - watched, to: end),
        ]
    }
}

private let pageSize = Int(sysconf(Int32(_SC_PAGESIZE)))

/// The cached pages of a range of a file.
private struct Residency {
    let range: ByteRange
    private let isCached: [Bool]

    /// The corresponding C function is `mincore`, for a range of whole pages.
    init?(_ descriptor: Int32, _ range: ByteRange) {
        guard !range.isEmpty,
            let memory = mmap(
                nil, range.length, PROT_READ, MAP_SHARED, descriptor, off_t(range.offset)),
            memory != MAP_FAILED
        else { return nil }
        defer { munmap(memory, range.length) }
        var answer = [UInt8](repeating: 0, count: range.length / pageSize)
        guard mincore(memory, range.length, &answer) == 0 else { return nil }
        self.range = range
        isCached = answer.map { $0 & 1 != 0 }
    }

    func runs(notIn old: Residency) -> [ByteRange] {
        var runs: [ByteRange] = []
        for page in isCached.indices where isCached[page] && !old.isCached[page] {
            let offset = range.offset + page * pageSize
            if let last = runs.last, last.end == offset {
                runs[runs.count - 1].length += pageSize
            } else {
                runs.append(ByteRange(offset: offset, length: pageSize))
            }
        }
        return runs
    }
}
