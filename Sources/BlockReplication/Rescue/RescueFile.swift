// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import SyncEngine
internal import SystemPackage
internal import WireProtocol

/// The mapfile of a run that copies from a failing source.
struct RescueFile: RescueStore, Sendable {
    /// As the user wrote it.
    private let name: String
    /// With links resolved.
    private let path: String
    let readTimeout: Duration?
    private(set) var map: RescueMap
    /// Runs before this one that worked with the map.
    private var runs = 0
    /// The source before it was opened; `nil` if it was not found.
    private let found: FoundSource?

    private struct FoundSource {
        /// One that survives a restart if possible.
        var name: String
        /// Bytes.
        var size: Int
        var status: FileStatus
    }

    /// Reads the map before anything is opened; one that does not exist or is empty is new.
    ///
    /// - Throws: also a refusal of a file that is no map, is that of another source, or is on the
    ///   source or the target, and `invalid` if one of these is on a server.
    init(_ options: Replication.Mapfile, _ operands: Operands) throws(ReplicationError) {
        guard case .local(let source) = operands.source, case .local(let target) = operands.target
        else {
            throw ReplicationError(
                .invalid, "map: source and target must be on this machine",
                advice: "Copy to an image or a device of the machine that has the failing disk; "
                    + "a second run without the map takes that to the server.")
        }
        name = options.path
        readTimeout = options.readTimeout
        do throws(IOError) {
            let (path, exists) = try SafetyGate.checkMap(name, source: source, target: target)
            self.path = path
            found = Self.find(source)
            map = exists ? try Self.read(path, name) : RescueMap(size: 0)
            // A new image must not be created for a run that is refused.
            if let found { try checkSource(found.name, size: found.size) }
            guard map.bytes(.finished) > 0, case .path(let image) = target else { return }
            // The name of a logical volume is no path.
            let place = (try? resolve(target)) ?? image
            do throws(Errno) { _ = try FileStatus(path: place) } catch .noSuchFileOrDirectory {
                throw Self.wrongTarget(name, "\(target): it does not exist")
            } catch {}
        } catch {
            throw ReplicationError(error)
        }
    }

    /// `nil` if only opening the source says what is wrong.
    private static func find(_ source: Selector) -> FoundSource? {
        guard let path = try? resolve(source), let status = try? FileStatus(path: path),
            let device = try? describe(path: path, as: path)
        else { return nil }
        let name = device.stableTag ?? (try? canonicalPath(path)) ?? path
        return FoundSource(name: name, size: device.entry.size, status: status)
    }

    private static func read(_ path: String, _ name: String) throws(IOError) -> RescueMap {
        let text: [UInt8]
        let size: Int
        do throws(Errno) {
            size = try FileStatus(path: path).size
            text = size <= RescueMap.longestText ? try smallFileBytes(path) : []
        } catch {
            throw IOError(name, "read", error)
        }
        guard size <= RescueMap.longestText else {
            throw .refusal(
                .size, name, "it has \(size) bytes, and a map at most \(RescueMap.longestText)")
        }
        if text.isEmpty { return RescueMap(size: 0) }
        do throws(RescueMap.Fault) { return try RescueMap(text) } catch {
            throw .refusal(
                .wrongKind, name, "it is no map: line \(error.line): \(error.reason)",
                advice: "Name a mapfile of blkferry or GNU ddrescue, or a file that does not exist."
            )
        }
    }

    private static func wrongTarget(_ name: String, _ reason: String) -> IOError {
        .refusal(
            .changed, name, "it says that a part is copied, but \(reason)",
            advice: "Start with another map, or give it the target that it was made with.")
    }

    /// Checks that the map belongs to both devices, by names that survive a restart if possible.
    mutating func take(
        _ operands: Operands, _ source: OpenedSource, _ target: AdmittedTarget,
        _ endpoint: any Endpoint
    ) throws(ReplicationError) {
        guard case .local(let selector) = operands.source else { return }
        do throws(IOError) {
            // A dry run has created nothing that could have a name.
            let name =
                target.wasCreated
                ? Self.stableName(ofNew: operands.target) : try endpoint.identity().last ?? ""
            // The source was read for its name already, and that may take long.
            let sourceName: String
            if let found, let status = source.device.fileStatus, found.status.isSameFile(as: status)
            {
                sourceName = found.name
            } else {
                sourceName = try LocalEndpoint.stableName(of: selector)
            }
            let born = target.kind == .image ? Self.birth(of: target, operands.target) : nil
            try take(source: sourceName, source, target: name, target, born: born)
        } catch {
            throw ReplicationError(error)
        }
    }

    /// The name that a target has as soon as it exists.
    private static func stableName(ofNew target: Location) -> String {
        guard case .local(let selector) = target else { return target.description }
        return (try? LocalEndpoint.stableName(of: selector)) ?? target.description
    }

    /// The birth time of an image; `nil` if it has none.
    private static func birth(of image: AdmittedTarget, _ location: Location) -> Int? {
        if let status = image.device.fileStatus { return status.born }
        // A dry run shows another device.
        guard case .local(let selector) = location, let path = try? resolve(selector) else {
            return nil
        }
        return (try? FileStatus(path: path))?.born
    }

    private func checkSource(_ source: String, size: Int) throws(IOError) {
        guard map.size <= size else {
            throw .refusal(
                .size, name,
                "it is of a device of \(map.size) bytes or more, and the source has "
                    + "\(size)",
                advice: "Start with another map, or give it the source that it was made with.")
        }
        try check("source", Self.sourceNote(source, size))
    }

    private static func sourceNote(_ source: String, _ size: Int) -> String {
        line("\(source), \(size) bytes")
    }

    /// Checks a name against that in the map, if it has one.
    private func check(_ word: String, _ mine: String) throws(IOError) {
        for theirs in notes(word) where !mine.isSame(as: theirs) {
            throw .refusal(
                .changed, name,
                "it is the map of the \(word) \(printable(theirs)), not of " + printable(mine),
                advice: "Start with another map. If the \(word) is the same one with another name, "
                    + "remove the line '# blkferry: \(word)' from the map.")
        }
    }

    /// The rests of the comments that begin with a word.
    private func notes(_ word: String) -> [String] {
        map.notes.compactMap { note -> String? in
            let words = note.split(separator: " ", maxSplits: 1)
            return words.count == 2 && words[0] == word ? String(words[1]) : nil
        }
    }

    /// - Parameter born: the birth time of an image, in nanoseconds since 1970.
    private mutating func take(
        source: String, _ opened: OpenedSource, target: String, _ admitted: AdmittedTarget,
        born: Int?
    ) throws(IOError) {
        let size = opened.facts.size
        try checkSource(source, size: size)
        try check("target", Self.line(target))
        // An inode number is used again, and some file systems change it with each mount.
        if let born, map.bytes(.finished) > 0 {
            for theirs in notes("created") where theirs != String(born) {
                throw .refusal(
                    .changed, name,
                    "the image \(printable(target)) was created anew since the map was made",
                    advice: "Start with another map. If the image is a full copy of that one, "
                        + "remove the line '# blkferry: created' from the map.")
            }
        }
        runs = max(0, notes("runs").last.flatMap { Int($0) } ?? 0)
        let last = map.ranges(.finished).last?.end ?? 0
        guard last <= admitted.sizeBefore else {
            throw Self.wrongTarget(
                name, "the target \(printable(target)) had only \(admitted.sizeBefore) bytes")
        }
        map.extend(to: size)
        runs = min(runs, Int(Int32.max))
        map.notes = [
            "source \(Self.sourceNote(source, size))", "target \(Self.line(target))",
        ]
        if let born { map.notes.append("created \(born)") }
        map.notes.append("runs \(runs + 1)")
    }

    /// One line of text.
    private static func line(_ text: String) -> String {
        String(String.UnicodeScalarView(text.unicodeScalars.map { $0.value < 0x20 ? "?" : $0 }))
    }

    /// What the engine needs to work with the map.
    ///
    /// - Throws: an error if the source cannot be read by another process.
    func rescue(_ source: any BlockDevice, layout: BlockLayout) throws(IOError) -> Rescue {
        guard let readable = source as? any SpotReadable else {
            throw IOError(source.name, "read with a map", .notSupported)
        }
        // A piece is longer by a unit at most.
        let room = Rescue.window(for: layout) + (2 << 20)
        return Rescue(
            map: map, isReversed: runs % 2 == 1, readTimeout: readTimeout,
            reader: readable.spotReader(room: room), store: self)
    }

    func save(_ map: RescueMap) throws(IOError) {
        do throws(Errno) {
            try replaceFile(path, with: map.text)
            // The new name survives a power cut, too.
            let directory = FilePath(path).removingLastComponent()
            try OwnedDescriptor.open(directory.string, flags: O_RDONLY).synchronize()
        } catch {
            let isFull = error == .noSpace || error == .diskQuotaExceeded
            throw IOError(
                name, "write", error, advice: isFull ? "Make room, and run it again." : nil)
        }
    }

    /// - Parameter result: of the run; `nil` if it left the map alone.
    func report(_ result: RescueResult?) -> Replication.Report.Mapfile {
        let result = result ?? RescueResult(map)
        return Replication.Report.Mapfile(
            path: name, finished: result.finished, bad: result.bad, open: result.open,
            wasSilent: result.wasSilent)
    }
}
