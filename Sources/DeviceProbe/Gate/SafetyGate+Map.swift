// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import LinuxIO
internal import SystemPackage

extension SafetyGate {
    /// Refuses a rescue map that would replace the source or the target, or lie on one of them.
    ///
    /// A map may lie beside an image.
    ///
    /// - Parameters:
    ///   - source: must exist.
    ///   - target: need not exist.
    /// - Returns: the path with links resolved, and whether the file exists.
    package static func checkMap(
        _ path: String, source: Selector, target: Selector, view: SystemView = SystemView()
    ) throws(IOError) -> (path: String, exists: Bool) {
        let directory: (path: String, status: FileStatus)
        var place: String
        var own: FileStatus?
        do throws(Errno) {
            place = path
            do throws(Errno) {
                own = try FileStatus(path: path)
                place = try canonicalPath(path)
            } catch .noSuchFileOrDirectory {}
            directory = try parent(of: place)
            guard directory.status.kind == .directory else { throw Errno.notDirectory }
            if own == nil, let name = FilePath(path).lastComponent, name.kind == .regular {
                place = "\(directory.path)/\(name.string)"
            }
        } catch {
            throw IOError(path, "open", error)
        }
        if let own, own.kind != .regular {
            throw .refusal(
                .wrongKind, path, "it is no regular file", advice: "Name a file for the map.")
        }
        for (selector, word) in [(source, "source"), (target, "target")] {
            // The gate itself says what is wrong with a device, or creates the target.
            guard let found = try? find(selector, view: view).path else { continue }
            let host = HostState(view)
            var isOnIt = false
            if let status = try? FileStatus(path: found) {
                if status.kind == .blockDevice {
                    let map = DeviceIdentity.newImage(
                        fileSystem: directory.status.fileSystem, directory: directory.path)
                    isOnIt =
                        Footprint(.device(status.device), on: host)
                        .overlap(with: Footprint(map, on: host)) != nil
                } else if let own {
                    isOnIt = own.isSameFile(as: status)
                }
            } else if let beside = try? parent(of: found), let last = FilePath(found).lastComponent
            {
                isOnIt = "\(beside.path)/\(last.string)".isSame(as: place)
            }
            guard isOnIt else { continue }
            throw .refusal(
                .overlap, path, "it would be on the \(word), \(selector)",
                advice: "Name a file on another device for the map.")
        }
        return (place, own != nil)
    }
}
