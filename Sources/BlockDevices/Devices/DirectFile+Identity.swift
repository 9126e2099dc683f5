// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import Synchronization
internal import SystemPackage

/// Checks at the end of a run that the name still leads to the same file.
extension DirectFile {
    /// Throws if the path by which the file was opened is gone or leads to another file.
    ///
    /// Links under /dev/disk are resolved once, when the file is opened. udev derives some of them
    /// from the content of a device, which a run changes.
    func checkName() throws(IOError) {
        try checkName { () throws(Errno) in try FileStatus(path: path) }
    }

    /// Throws if the name leads to no file or to another one.
    ///
    /// - Parameter status: returns the status of the file that the name leads to now.
    func checkName(by status: () throws(Errno) -> FileStatus) throws(IOError) {
        do throws(Errno) {
            let own = try main.status()
            let named = try status()
            if own.kind == .blockDevice {
                // udev may create another node for the same device.
                guard named.kind == .blockDevice, named.device == own.device else {
                    throw .staleNFSFileHandle
                }
            } else {
                guard named.isSameFile(as: own) else { throw .staleNFSFileHandle }
                // A path such as /dev/fd/3 can lead to a file without a name.
                if hasName && own.links == 0 { throw .noSuchFileOrDirectory }
            }
        } catch .noSuchFileOrDirectory, .notDirectory {
            throw failedCheck(
                "nothing has that name any more",
                advice: "It was removed or renamed during the run. Run it again.")
        } catch .staleNFSFileHandle {
            throw failedCheck(
                "another file or device has that name now",
                advice: "It was replaced during the run. Run it again.")
        } catch {
            throw IOError(name, "check at the end", error)
        }
    }

    /// Throws if the file behind a loop device below was removed, renamed or replaced.
    func checkBackings() throws(IOError) {
        for file in backings.withLock({ $0 }) {
            let isNamed: Bool
            do throws(Errno) { isNamed = try file.hasItsName() } catch {
                throw IOError(name, "check \(file.path) at the end", error)
            }
            if !isNamed {
                throw failedCheck(
                    "the file behind it has no name any more",
                    advice: "\(file.path) was removed, renamed or replaced during the run. "
                        + "Run it again.")
            }
        }
    }

    /// The sizes and times of change of the backing files below; `nil` if one cannot be read.
    func counterOfBackings() -> ChangeCounter? {
        var marks: [Int] = []
        for file in backings.withLock({ $0 }) {
            guard let added = try? file.changeMarks() else { return nil }
            marks += added
        }
        return ChangeCounter(marks)
    }

    /// Throws if a size in bytes has changed.
    func checkSize(_ now: Int, _ before: Int) throws(IOError) {
        guard now != before else { return }
        throw failedCheck(
            "its size has changed from \(before) to \(now) bytes during the run",
            advice: "Another program resized it. Run it again.")
    }

    func failedCheck(_ reason: String, advice: String) -> IOError {
        IOError(name, "check at the end", reason: reason, advice: advice)
    }
}
