// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import LinuxIO
internal import LogicalVolumes
internal import SystemPackage
internal import WireProtocol

extension ExportTable {
    /// The kind of a name that is not a path; it excludes exports that cannot match.
    enum Wanted {
        case everything
        /// A tag of content, on devices and in images: `UUID=` and `LABEL=`.
        case content
        /// A tag that only block devices have.
        case device
        /// An id that is computed from a path: `NAME=`.
        case id(String)

        init?(_ name: String) {
            switch Selector(name) {
            case .tag(.uuid, _), .tag(.label, _): self = .content
            case .tag: self = .device
            case .path where name.begins(with: "NAME="): self = .id(name)
            case .path where name.begins(with: "WWN=") || name.begins(with: "SERIAL="):
                self = .device
            case .path: return nil
            }
        }

        func mayBe(_ path: String) -> Bool {
            if case .id(let id) = self { ExportTable.nameBasedID(path) == id } else { true }
        }

        var mayBeInDirectory: Bool { if case .device = self { false } else { true } }
    }

    /// The response if the existence of a device cannot be determined.
    static func unavailable(_ name: String, _ errno: Errno) -> Problem {
        var problem = Problem(
            .busy, status: 503, "The server cannot look at its exports",
            detail: "\(errno)", object: name, operation: "find device",
            advice: Shortages.includes(errno) ? IOError(name, "open", errno).advice : nil)
        problem.errno = Int(errno.rawValue)
        return problem
    }

    /// Throws a 503 if an error shows a shortage or a failing file system, not a missing file.
    static func require(absenceOf name: String, by errno: Errno?) throws(Problem) {
        guard let errno, errno == .ioError || Shortages.includes(errno) else { return }
        throw unavailable(name, errno)
    }
}

extension ExportSelector {
    /// The path of a device that is exported by path, without the pool of a volume that may be
    /// created.
    var devicePath: String { canCreate ? VolumePlace(text)?.selector ?? text : text }
}
