// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import SystemPackage

extension Entrance {
    func admitImage() throws(ProbeError) -> AdmittedTarget {
        let (image, file) = try openImage()
        try asProbeError { () throws(IOError) in try image.requireSaneSize() }
        if let status = try? FileStatus(path: path), isAmongDeviceFiles(status) {
            throw refusal(.wrongKind, "it is a file of the kernel's, not an image")
        }
        let host = try seeingHost()
        let identity = DeviceIdentity.image(file, path: path)
        try claim(image, file, host)
        if let no = refusal(for: host.uses(of: file)) { throw no }
        if let no = refusalForUnknownLoop(size: image.geometry.size, host) { throw no }
        let verdict = try verdict(.image, identity, image.geometry)
        let size = verdict.resizeTo ?? image.geometry.size
        return AdmittedTarget(
            device: policy.isDryRun ? untouchable(image, size: size) : image, kind: .image,
            sizeBefore: image.geometry.size, resizeTo: verdict.resizeTo, wasCreated: false,
            warnings: verdict.warnings,
            isRotational: host.isRotational(Footprint(identity, on: host)))
    }

    /// A loop device of which nobody can tell what it stands on may stand on the image.
    private func refusalForUnknownLoop(size: Int, _ host: HostState) -> ProbeError? {
        let suspect = host.loops.first {
            $0.backing == .unknown && $0.offset <= size - min(size, $0.loop.size)
        }
        guard let suspect else { return nil }
        return refusal(
            .inUse, "loop device \(suspect.loop.path) may stand on it, which cannot be told",
            advice: "Run it as root, or detach it first: losetup -d \(suspect.loop.path)")
    }

    private func openImage() throws(ProbeError) -> (ImageFile, FileIdentity) {
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
            default: throw .failed(error)
            }
        }
    }

    /// Locks the image before anything about it is decided; then it must not be the source.
    private func claim(
        _ image: ImageFile, _ file: FileIdentity, _ host: HostState
    ) throws(ProbeError) {
        let isOurs = try asProbeError { () throws(IOError) in try image.lock(exclusive: true) }
        // First of all: the lock that is in the way may be the source's own.
        if let no = refusalForOverlap(.image(file, path: path), host) { throw no }
        if isOurs { return }
        if let no = refusal(for: host.uses(of: file)) { throw no }
        let owners = Claimants(host: host).ofImage(file, path: path)
        let who = owners.isEmpty ? "another program" : owners.joined(separator: ", ")
        throw refusal(.locked, "it is locked by \(who)")
    }

    /// Creates the image once nothing speaks against it.
    func admitNewImage() throws(ProbeError) -> AdmittedTarget {
        let directory = try directoryOfNewImage()
        let host = try seeingHost()
        let identity = DeviceIdentity.newImage(
            fileSystem: directory.status.fileSystem, directory: directory.path)
        if let no = refusalForOverlap(identity, host) { throw no }
        return AdmittedTarget(
            device: policy.isDryRun
                ? untouchable(nil, size: source.size) : try createImage(in: directory.path),
            kind: .image, sizeBefore: 0, resizeTo: source.size, wasCreated: true, warnings: [],
            isRotational: host.isRotational(Footprint(identity, on: host)))
    }

    /// Finds the directory that the image is going to be in, and whether it can be.
    private func directoryOfNewImage() throws(ProbeError) -> (path: String, status: FileStatus) {
        if symbolicLinkTarget(path) != nil {
            throw refusal(.wrongKind, "it is a symbolic link that leads nowhere")
        }
        guard let last = FilePath(path).lastComponent, last.kind == .regular, !path.hasSuffix("/")
        else { throw .failed(IOError(name, "create", .noSuchFileOrDirectory)) }
        let parent = FilePath(path).removingLastComponent()
        let written = parent.isEmpty ? "." : parent.string
        let real: String
        let status: FileStatus
        do throws(Errno) {
            real = try canonicalPath(written)
            status = try FileStatus(path: real)
        } catch .noSuchFileOrDirectory {
            var error = IOError(name, "create", .noSuchFileOrDirectory)
            error.reason = "parent directory \(written) is missing"
            throw .failed(error)
        } catch {
            throw .failed(IOError(name, "create", error))
        }
        if let no = refusalForDeviceDirectory(real, status) { throw no }
        // So that a dry run says what the real one would.
        if access(real, W_OK | X_OK) != 0 {
            let error = currentErrno()
            if error == .readOnlyFileSystem {
                throw refusal(.readOnly, "\(written) is on a read-only file system")
            }
            throw .failed(IOError(name, "create", error))
        }
        return (real, status)
    }

    /// A file among the device files is a mistyped device, and would fill the memory.
    private func refusalForDeviceDirectory(
        _ directory: String, _ status: FileStatus
    ) -> ProbeError? {
        let devices = (try? canonicalPath(view.dev)) ?? view.dev
        guard
            isAmongDeviceFiles(status) || directory == devices || directory.hasPrefix(devices + "/")
        else {
            return nil
        }
        return refusal(
            .wrongKind, "there is no such device, and an image is never created under /dev",
            advice: "blkferry list shows the devices of this machine.")
    }

    /// Whether a file is in one of the kernel's own file systems: no image ever is.
    private func isAmongDeviceFiles(_ status: FileStatus) -> Bool {
        Mount.all(in: view).contains {
            ["devtmpfs", "proc", "sysfs"].contains($0.type) && $0.device == status.fileSystem
        }
    }

    private func createImage(in directory: String) throws(ProbeError) -> ImageFile {
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
            throw refusal(.inUse, "somebody else has just created it")
        } catch {
            throw .failed(IOError(name, "create", error))
        }
        do throws(ProbeError) {
            let (image, file) = try openImage()
            let isLocked = try asProbeError { () throws(IOError) in
                try image.lock(exclusive: true)
            }
            if file == created && isLocked { return image }
        } catch {
            // It is ours and nobody has locked it: no trace of it shall stay.
            unlink(path)
            throw error
        }
        throw refusal(.locked, "somebody else has just replaced or locked it")
    }
}
