// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package struct ServerRecord: Codable, Hashable, Sendable {
    package var name = "blkferry"
    package var version: String
    package var api = 1
    package var features: [String]
    package var digests: [String]
    package var limits = LimitsRecord()

    package init(version: String, features: [String], digests: [String]) {
        self.version = version
        self.features = features
        self.digests = digests
    }
}

/// Limits of one request: bytes, and numbers of extents.
package struct LimitsRecord: Codable, Hashable, Sendable {
    package var window = Limits.window
    package var payload = Limits.payload
    package var extents = Limits.extents
    package var body = Limits.body
    package init() {}
}

/// `GET /v1/devices`.
package struct ExportList: Codable, Hashable, Sendable {
    package var devices: [ExportRecord]
    /// Clients find images there, and create them with write access.
    package var directories: [DirectoryRecord]

    package init(devices: [ExportRecord], directories: [DirectoryRecord]) {
        self.devices = devices
        self.directories = directories
    }
}

package struct DirectoryRecord: Codable, Hashable, Sendable {
    package var path: String
    package var access: ExportAccess

    package init(path: String, access: ExportAccess) {
        self.path = path
        self.access = access
    }
}

/// `GET /v1/devices/{id}`: a device that the server offers.
package struct ExportRecord: Codable, Hashable, Sendable {
    /// The most stable name, which does not depend on the content.
    package var id: String
    /// Everything that selects the device, including `id` and `path`.
    package var tags: [String]
    package var path: String
    /// `block-device` or `image`.
    package var kind: String
    /// Bytes.
    package var size: Int
    /// Bytes.
    package var logicalSector: Int
    package var access: ExportAccess
    package var content: ContentRecord
    /// Without paths: `mounted`, `in use as swap`.
    package var inUseBy: [String]
    /// Why its content is unknown.
    package var unreadable: String?

    package init(
        id: String, tags: [String], path: String, kind: String, size: Int, logicalSector: Int,
        access: ExportAccess, content: ContentRecord, inUseBy: [String], unreadable: String?
    ) {
        self.id = id
        self.tags = tags
        self.path = path
        self.kind = kind
        self.size = size
        self.logicalSector = logicalSector
        self.access = access
        self.content = content
        self.inUseBy = inUseBy
        self.unreadable = unreadable
    }
}

package enum ExportAccess: String, Codable, Hashable, Sendable {
    case readOnly = "ro"
    case readWrite = "rw"
}
