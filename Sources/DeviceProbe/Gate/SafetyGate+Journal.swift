// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import LinuxIO
internal import SystemPackage

extension SafetyGate {
    /// Refuses an undo journal that would lie on its target, or in the file system of its image.
    ///
    /// It would be written by the run, or lost together with the target.
    ///
    /// - Parameter target: need not exist.
    package static func checkJournal(
        _ path: String, of target: Selector, view: SystemView = SystemView()
    ) throws(IOError) {
        let directory = try directory(of: path)
        let place: String
        do throws(IOError) { place = try find(target, view: view).path } catch {
            // The gate itself says what is wrong with the target, or creates it.
            return
        }
        let reason: String?
        if let status = try? FileStatus(path: place), status.kind == .blockDevice {
            let host = HostState(view)
            let journal = DeviceIdentity.newImage(
                fileSystem: directory.status.fileSystem, directory: directory.path)
            let overlap = Footprint(.device(status.device), on: host)
                .overlap(with: Footprint(journal, on: host))
            reason = overlap == nil ? nil : "it would be on the target, \(target)"
        } else {
            let own =
                (try? FileStatus(path: place)) ?? (try? parent(of: place).status)
            reason =
                own?.fileSystem == directory.status.fileSystem
                ? "it would be on the file system of the target, \(target)" : nil
        }
        guard let reason else { return }
        throw .refusal(
            .overlap, path, reason, advice: "Name a file on another device for the undo journal.")
    }

    /// Refuses a checkpoint that is a device of the run, or lies on the target.
    ///
    /// Beside an image it may be: it is small, and says nothing after a restart of the machine.
    ///
    /// - Parameter device: need not exist.
    package static func checkCheckpoint(
        _ path: String, of device: Selector, isTarget: Bool, view: SystemView = SystemView()
    ) throws(IOError) {
        let directory = try directory(of: path)
        let itself = IOError.refusal(
            .overlap, path, "it is the \(isTarget ? "target" : "source"), \(device)",
            advice: "Name another file for the checkpoint.")
        let own = try? FileStatus(path: path)
        guard let place = try? find(device, view: view).path,
            let status = try? FileStatus(path: place)
        else {
            // The gate itself says what is wrong with a device, or creates an image.
            guard case .path(let name) = device, let other = try? parent(of: name),
                other.path == directory.path,
                FilePath(name).lastComponent == FilePath(path).lastComponent
            else { return }
            throw itself
        }
        if let own, own.isSameFile(as: status) { throw itself }
        guard isTarget, status.kind == .blockDevice else { return }
        let host = HostState(view)
        let checkpoint =
            own.flatMap { DeviceIdentity($0, path: path) }
            ?? .newImage(fileSystem: directory.status.fileSystem, directory: directory.path)
        guard
            Footprint(.device(status.device), on: host)
                .overlap(with: Footprint(checkpoint, on: host)) != nil
        else { return }
        throw .refusal(
            .overlap, path, "it would be on the target, \(device)",
            advice: "Name a file on another device for the checkpoint.")
    }

    private static func directory(
        of path: String
    ) throws(IOError) -> (path: String, status: FileStatus) {
        do throws(Errno) {
            let directory = try parent(of: path)
            guard directory.status.kind == .directory else { throw Errno.notDirectory }
            return directory
        } catch {
            throw IOError(path, "create", error)
        }
    }

    static func parent(of path: String) throws(Errno) -> (path: String, status: FileStatus) {
        let written = FilePath(path).removingLastComponent()
        let path = written.isEmpty ? "." : written.string
        // A process that has given up root may use the directory, and not look it up.
        return ((try? canonicalPath(path)) ?? path, try FileStatus(path: path))
    }
}
