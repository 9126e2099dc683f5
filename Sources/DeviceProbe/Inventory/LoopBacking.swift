// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import Synchronization
internal import SystemPackage

/// An attached loop device and its backing file or device.
struct LoopBacking: Sendable {
    enum Backing: Hashable, Sendable {
        case file(FileIdentity)
        case device(UInt64)
        /// The backing cannot be determined.
        case unknown
    }

    let loop: KernelDevice
    let backing: Backing
    /// Offset within the backing, in bytes.
    let offset: Int

    /// Milliseconds: the kernel asks the backing file's file system, whose server may be gone.
    private static let patience: Int32 = 1000
    /// Milliseconds, after a loop device has not answered.
    private static let briefPatience: Int32 = 100
    /// How long a loop device that did not answer is not asked again.
    private static let pause = Duration.seconds(30)
    /// Loop devices that did not answer, with the time.
    private static let late = Mutex<[UInt64: ContinuousClock.Instant]>([:])

    /// The backing of all attached loop devices; unknown if a device does not answer.
    static func all(of devices: [KernelDevice], view: SystemView) -> [LoopBacking] {
        var open = devices.filter { $0.backingPath != nil }
        var known: [LoopBacking] = []
        var patience = patience
        while !open.isEmpty {
            let isLate = late.withLock { late in
                late = late.filter { ContinuousClock.now - $0.value < pause }
                return Set(late.keys)
            }
            let silent = open.filter { isLate.contains($0.number) }
            known += silent.map { LoopBacking(unknown: $0, view) }
            open.removeAll { isLate.contains($0.number) }
            guard let answers = ask(open, view, patience) else {
                known += open.map { LoopBacking(unknown: $0, view) }
                break
            }
            known += zip(open, answers).compactMap { LoopBacking($0, $1, view) }
            open.removeFirst(answers.count)
            // The next device has held up the others.
            if let first = open.first { late.withLock { $0[first.number] = .now } }
            patience = briefPatience
        }
        return known.sorted { naturallyPrecedes($0.loop.name, $1.loop.name) }
    }

    /// The backing of all attached loop devices; no other device is looked at.
    static func all(view: SystemView) -> [LoopBacking] {
        let names = namesInDirectory("\(view.sys)/class/block").filter { $0.hasPrefix("loop") }
        return all(of: names.compactMap { KernelDevice(entry: $0, view: view) }, view: view)
    }

    /// The attached loop devices with backing path, disk sequence number, and range in the backing,
    /// as sysfs shows them.
    static func attached(view: SystemView) -> [String: [KernelPath?]] {
        var attached: [String: [KernelPath?]] = [:]
        for name in namesInDirectory("\(view.sys)/class/block") where name.hasPrefix("loop") {
            let directory = "\(view.sys)/class/block/\(name)"
            guard let path = KernelPath(inFile: "\(directory)/loop/backing_file") else { continue }
            var values: [KernelPath?] = [path]
            for attribute in ["diskseq", "loop/offset", "loop/sizelimit"] {
                values.append(KernelPath(inFile: "\(directory)/\(attribute)"))
            }
            attached[name] = values
        }
        return attached
    }

    /// Whether any loop device is attached, by sysfs alone.
    static func isAnyAttached(view: SystemView) -> Bool {
        let directory = "\(view.sys)/class/block"
        return namesInDirectory(directory).contains {
            $0.hasPrefix("loop") && FileStatus.exists("\(directory)/\($0)/loop/backing_file")
        }
    }

    /// Asks loop devices in another process; the answers end at the first device that gives none.
    private static func ask(
        _ loops: [KernelDevice], _ view: SystemView, _ patience: Int32
    ) -> [clb_loop_answer]? {
        var words: [UnsafeMutablePointer<CChar>?] = []
        defer { for word in words { free(word) } }
        let questions = loops.map { loop in
            let (node, path) = (
                strdup(view.devicePath(loop.path)),
                strdup(view.devicePath(loop.backingPath ?? KernelPath("")).cString)
            )
            words += [node, path]
            return clb_loop_question(node: node, number: loop.number, path: path)
        }
        let end = questions.withUnsafeBufferPointer { clb_ask_loops($0.baseAddress, $0.count) }
        guard end >= 0 else { return nil }
        let pipe = OwnedDescriptor(owning: end)
        var answers: [clb_loop_answer] = []
        while answers.count < loops.count {
            var request = pollfd(fd: pipe.rawValue, events: Int16(POLLIN), revents: 0)
            let count = poll(&request, 1, patience)
            if count < 0 && errno == EINTR { continue }
            var answer = clb_loop_answer()
            // A pipe transfers so few bytes in one piece.
            let size = MemoryLayout<clb_loop_answer>.size
            guard count > 0, read(pipe.rawValue, &answer, size) == size else { break }
            answers.append(answer)
        }
        return answers
    }

    private init(unknown loop: KernelDevice, _ view: SystemView) {
        self.loop = loop
        backing = .unknown
        offset = Self.shownOffset(loop, view)
    }

    /// Interprets a loop device's answer; `nil` if it was detached after sysfs was read.
    ///
    /// The kernel reports device and inode number of the backing file. If the loop device cannot be
    /// opened, as in a container, the path in sysfs was looked up. That path may belong to another
    /// mount namespace, and lead to no file here or to another one.
    private init?(_ loop: KernelDevice, _ answer: clb_loop_answer, _ view: SystemView) {
        if answer.is_detached { return nil }
        self.loop = loop
        offset =
            answer.by_kernel
            ? Int(clamping: answer.backing.offset) : Self.shownOffset(loop, view)
        let (end, isTooFar) = offset.addingReportingOverflow(loop.size)
        // The file is another one if it is too short for the loop device.
        let isLikely = answer.by_path && !isTooFar && end <= Int(clamping: answer.file_size)
        if answer.backing.block_device != 0 {
            backing = .device(answer.backing.block_device)
        } else if answer.by_kernel || isLikely {
            backing = .file(
                FileIdentity(fileSystem: answer.backing.device, inode: answer.backing.inode))
        } else {
            backing = .unknown
        }
    }

    /// The offset in bytes as sysfs shows it, which needs no answer of the loop device; 0 if it shows
    /// none.
    private static func shownOffset(_ loop: KernelDevice, _ view: SystemView) -> Int {
        loop.attribute("loop/offset", in: view).flatMap { Int($0) } ?? 0
    }
}
