// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import SystemPackage

extension TargetAdmission {
    func admitImage() throws(IOError) -> AdmittedTarget {
        try onceUnlocked { () throws(IOError) in try admitUnlockedImage() }
    }

    private func admitUnlockedImage() throws(IOError) -> AdmittedTarget {
        let unshared = imageThatNoProgramHasOpen()
        let (image, file) = try openImage()
        try image.requireSaneSize()
        if let status = try? FileStatus(path: path), isAmongDeviceFiles(status) {
            throw refusal(.wrongKind, "it is a file of the kernel's, not an image")
        }
        let host = try seeingHost()
        let identity = DeviceIdentity.image(file, path: path)
        if let no = StandardStreams.refusal(identity, name, host) { throw no }
        try claim(image, file, host)
        if let no = refusal(for: host.uses(of: file)) { throw no }
        if unshared != file, let no = refusalForUnknownLoop(size: image.geometry.size, host) {
            throw no
        }
        let backings = watch(image, file, host)
        let data = try image.nextData(from: 0)
        let verdict = try verdict(.image, identity, image.geometry, hasData: data != nil)
        let size = verdict.resizeTo ?? image.geometry.size
        let room = ImageRoom(ofImage: path, name: name)
        if let no = room.refusal(ofSize: size, growing: size > image.geometry.size) {
            throw no
        }
        let allocated = (try? image.status())?.allocated ?? 0
        let warnings = verdict.warnings + room.warnings(for: source, allocated: allocated)
        return AdmittedTarget(
            device: policy.isDryRun ? untouchable(image, size: size) : image, kind: .image,
            sizeBefore: image.geometry.size, resizeTo: verdict.resizeTo,
            isReplica: verdict.isReplica, leftovers: verdict.erased, wasCreated: false,
            warnings: warnings + backings.warnings(name),
            isRotational: host.isRotational(Footprint(identity, on: host)))
    }

    /// Makes an image notice other programs that write to it or to the files below it.
    private func watch(
        _ image: ImageFile, _ file: FileIdentity, _ host: HostState
    ) -> LoopBackings {
        let identity = DeviceIdentity.image(file, path: path)
        let backings = LoopBackings(below: identity, host)
        image.flushThrough(backings.cached)
        image.setBackings(backings.all)
        image.checkForOthers(host.newLoops(on: identity))
        let writers = ImageWriters(of: file, path: path, view)
        image.checkForWriters { writers.isAny() }
        return backings
    }

    /// The target, if it is certain that no loop device uses it, even one with an unknown backing.
    ///
    /// A loop device has its file open. The kernel gives a lease only for a file that no other
    /// program has open, in any mount namespace (fcntl(2)). Must be called before the image is
    /// opened for writing.
    private func imageThatNoProgramHasOpen() -> FileIdentity? {
        guard LoopBacking.isAnyAttached(view: view),
            let file = try? OwnedDescriptor.open(path, flags: O_RDONLY | O_NONBLOCK),
            let status = try? file.status(), clb_lease(file.rawValue) == 0
        else { return nil }
        return FileIdentity(status)
    }

    /// Refuses the image if a loop device with an unknown backing may use it.
    private func refusalForUnknownLoop(size: Int, _ host: HostState) -> IOError? {
        let suspect = host.loops.first {
            $0.backing == .unknown && $0.offset <= size - min(size, $0.loop.size)
        }
        guard let loop = suspect?.loop.path else { return nil }
        // Asking the loop device takes a pipe.
        if let reason = Descriptors.shortage(of: 2) {
            return IOError(loop, "get the backing file", reason)
        }
        return refusal(
            .inUse,
            "loop device \(loop) may be attached to it: the device's backing file cannot be "
                + "determined here, and another program may have the image open",
            advice: geteuid() == 0
                ? "In a container, let it read \(loop), or name an image that is not there yet."
                : "Run it as root, or detach it first: losetup -d \(loop)")
    }

    private func openImage() throws(IOError) -> (ImageFile, FileIdentity) {
        do throws(IOError) {
            let image = try ImageFile(path: path, name: name, access: .readWrite)
            return (image, FileIdentity(try image.status()))
        } catch {
            switch error.errno {
            case .some(.readOnlyFileSystem):
                throw refusal(.readOnly, "it is on a read-only file system")
            case .some(.textFileBusy): throw refusal(.inUse, "it is in use as a program or swap")
            case .some(.permissionDenied), .some(.notPermitted):
                throw refusal(.readOnly, "it is read-only for this user (\(error.reason))")
            default: throw error
            }
        }
    }

    /// Locks the image before anything else is decided, and checks that it is not the source.
    private func claim(
        _ image: ImageFile, _ file: FileIdentity, _ host: HostState
    ) throws(IOError) {
        let isOurs = try image.lock(exclusive: true)
        // Checked first, because the lock may be the source's own.
        if let no = refusalForOverlap(.image(file, path: path), host) { throw no }
        if isOurs { return }
        if let no = refusal(for: host.uses(of: file)) { throw no }
        throw refusalForLock(Claimants(host: host).ofImage(file, path: path))
    }

    func admitNewImage() throws(IOError) -> AdmittedTarget {
        let directory = try directoryOfNewImage()
        let host = try seeingHost()
        let identity = DeviceIdentity.newImage(
            fileSystem: directory.status.fileSystem, directory: directory.path)
        if let no = refusalForOverlap(identity, host) { throw no }
        let room = ImageRoom(inDirectory: directory.path, name: name)
        if let no = room.refusal(ofSize: source.size, growing: true) { throw no }
        return AdmittedTarget(
            device: policy.isDryRun
                ? untouchable(nil, size: source.size) : try createImage(in: directory.path, host),
            kind: .image, sizeBefore: 0, resizeTo: source.size, wasCreated: true,
            warnings: room.warnings(for: source, allocated: 0) + source.packingWarnings,
            isRotational: host.isRotational(Footprint(identity, on: host)))
    }

    private func directoryOfNewImage() throws(IOError) -> (path: String, status: FileStatus) {
        if symbolicLinkTarget(path) != nil {
            throw refusal(.wrongKind, "it is a symbolic link that leads nowhere")
        }
        guard let last = FilePath(path).lastComponent, last.kind == .regular, !path.hasSuffix("/")
        else { throw failedCreation(.noSuchFileOrDirectory) }
        let parent = FilePath(path).removingLastComponent()
        let written = parent.isEmpty ? "." : parent.string
        let real: String
        let status: FileStatus
        do throws(Errno) {
            real = try canonicalPath(written)
            status = try FileStatus(path: real)
        } catch .noSuchFileOrDirectory {
            throw failedCreation(
                .noSuchFileOrDirectory, reason: "parent directory \(written) is missing")
        } catch {
            throw failedCreation(error)
        }
        if let no = refusalForDeviceDirectory(real, status) { throw no }
        // A dry run must report the same error as the real run, which also opens the directory for
        // reading, to flush the new name.
        if access(real, R_OK | W_OK | X_OK) != 0 {
            let error = currentErrno()
            if error == .readOnlyFileSystem {
                throw refusal(.readOnly, "\(written) is on a read-only file system")
            }
            throw failedCreation(error)
        }
        return (real, status)
    }

    private func failedCreation(_ errno: Errno, reason: String? = nil) -> IOError {
        var error = IOError(name, "create", errno)
        error.kind = .creation
        if let reason { error.reason = reason }
        return error
    }

    /// A file under /dev is a mistyped device name, and would fill the memory.
    private func refusalForDeviceDirectory(
        _ directory: String, _ status: FileStatus
    ) -> IOError? {
        let devices = (try? canonicalPath(view.dev)) ?? view.dev
        guard
            isAmongDeviceFiles(status) || directory.isSame(as: devices)
                || directory.begins(with: devices + "/")
        else {
            return nil
        }
        return refusal(
            .wrongKind, "there is no such device, and an image is never created under /dev",
            advice: "blkferry list shows the devices of this machine.")
    }

    /// Whether a file is in devtmpfs, proc or sysfs, where no image can be.
    private func isAmongDeviceFiles(_ status: FileStatus) -> Bool {
        Mount.all(in: view).contains {
            ["devtmpfs", "proc", "sysfs"].contains($0.type) && $0.device == status.fileSystem
        }
    }

    private func createImage(
        in directory: String, _ host: HostState
    ) throws(IOError) -> ImageFile {
        let created: FileIdentity
        do throws(Errno) {
            let parent = try OwnedDescriptor.open(directory, flags: O_RDONLY | O_DIRECTORY)
            let file = try OwnedDescriptor.open(
                path, flags: O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
            created = FileIdentity(try file.status())
            // fsync(2): a file's own fsync does not make its name durable; its directory's does.
            do throws(Errno) { try parent.synchronize() } catch {
                unlink(path)
                throw error
            }
        } catch .fileExists {
            throw refusal(.inUse, "another program has just created it")
        } catch {
            throw failedCreation(error)
        }
        do throws(IOError) {
            let (image, file) = try openImage()
            let isLocked = try image.lock(exclusive: true)
            if file == created && isLocked {
                _ = watch(image, file, host)
                return image
            }
        } catch {
            // This run has created it and no other program has locked it, so it is removed.
            unlink(path)
            throw error
        }
        throw refusal(.locked, "another program has just replaced or locked it")
    }
}
