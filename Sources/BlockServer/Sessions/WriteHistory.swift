// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import LinuxIO
internal import WireProtocol

/// Identifies a device independently of its name.
enum DeviceKey: Hashable {
    case device(UInt64)
    case file(FileIdentity)
    case new(ByteString)

    init(_ found: ExportTable.Found) {
        switch found.identity {
        case .device(let number): self = .device(number)
        case .image(let file, _): self = .file(file)
        case .newImage, nil: self = .new(ByteString(found.name))
        }
    }

    fileprivate var text: String {
        switch self {
        case .device(let number): "device \(number)"
        case .file(let file): "file \(file.fileSystem) \(file.inode)"
        // Two long names may share a key: then each counts as changed by writes to the other.
        case .new(let name): "new \(name.text)".cut(toBytes: 256)
        }
    }

    init?(_ host: HostRecord?) {
        if let device = host?.device {
            self = .device(device)
        } else if let file = host?.file {
            self = .file(file)
        } else {
            return nil
        }
    }
}

/// The last writing sessions of each device.
///
/// A client whose session timed out may open another one to continue its run. What it has compared
/// and written counts only if no other session has written to the device since.
struct WriteHistory: Codable {
    struct Entry: Codable {
        var run: String?
        var client: String?
        /// Also set while the session is open.
        var hasWritten: Bool
        /// Whether the session is open, or its server was killed.
        var isOpen: Bool?
        /// The device's change counter after the last flush.
        ///
        /// It is `nil` while the session is open, and if the device has none or others may have
        /// written to it during the session.
        var counter: [Int]?
        var failure: String?
        /// Whether another process wrote to the device during the session.
        var writtenByOthers: Bool?
    }

    /// What happened to a device since a run's session ended.
    enum Answer {
        /// No session has written; a change counter can show writes by other programs.
        case since(counter: [Int]?)
        /// Another session has written to the device, or another program during the run's session,
        /// or the history has lost what would show it.
        case changed(reason: String)
        case lost(reason: String)
    }

    /// Devices that are remembered, and sessions of each.
    ///
    /// A run needs its entry only until it has opened its lost session again. With the limits of an
    /// entry's texts, a full history has less than 1 MiB as JSON. Each session reads it twice.
    private static let (devices, sessions) = (128, 8)

    private struct Device: Codable {
        var key: String
        /// The latest one is last.
        var entries: [Entry]
        /// Whether entries of sessions that have written were dropped.
        var isCut: Bool?
    }
    /// The device with the latest session is last.
    private var list: [Device] = []
    /// Whether devices were dropped, or an earlier history could not be read.
    private var isCut: Bool?

    /// A history that follows one that cannot be read.
    static var afterLoss: WriteHistory {
        var history = WriteHistory()
        history.isCut = true
        return history
    }

    mutating func add(_ entry: Entry, of key: DeviceKey) {
        var entry = entry
        entry.failure = entry.failure?.cut(toBytes: 128)
        let index = list.firstIndex { $0.key.isSame(as: key.text) }
        var device = index.map { list.remove(at: $0) } ?? Device(key: key.text, entries: [])
        // An end replaces its beginning, and a beginning replaces an end without writes.
        let replaced = device.entries.lastIndex { known in
            guard known.run != nil, known.run == entry.run, known.client == entry.client else {
                return false
            }
            return entry.isOpen == true ? !known.hasWritten : known.isOpen == true
        }
        if let replaced { device.entries.remove(at: replaced) }
        device.entries.append(entry)
        if device.entries.count > Self.sessions, device.entries.removeFirst().hasWritten {
            device.isCut = true
        }
        list.append(device)
        if list.count > Self.devices {
            list.removeFirst(list.count - Self.devices)
            isCut = true
        }
    }

    func answer(to run: String?, of client: String?, for key: DeviceKey) -> Answer {
        let device = list.first { $0.key.isSame(as: key.text) }
        let entries = device?.entries ?? []
        let own = run.flatMap { run in
            entries.lastIndex { $0.run == run && $0.client == client }
        }
        if let own {
            if let failure = entries[own].failure { return .lost(reason: failure) }
            // The counter at the session's end would include that write.
            if entries[own].writtenByOthers == true {
                return .changed(reason: "another program wrote to it before the session ended")
            }
            if let counter = entries[own].counter { return .since(counter: counter) }
        }
        // A server that was killed has not recorded how the run's session ended, but it has
        // recorded the later sessions.
        let later = own.map { entries[($0 + 1)...] } ?? entries[...]
        if later.contains(where: \.hasWritten) {
            return .changed(reason: "another client has written to it since the session ended")
        }
        let isComplete = isCut != true && device?.isCut != true
        return own != nil || isComplete
            ? .since(counter: nil)
            : .changed(reason: "another client may have written to it since the session ended")
    }
}

extension String {
    fileprivate func cut(toBytes limit: Int) -> String {
        utf8.count <= limit ? self : String(decoding: utf8.prefix(limit), as: UTF8.self)
    }
}

extension IOError {
    static func changed(_ name: String, _ reason: String) -> IOError {
        .refusal(
            .changed, name, reason,
            advice: "Run it again if that may be overwritten: it compares everything.")
    }
}
