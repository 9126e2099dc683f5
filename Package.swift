// swift-tools-version: 6.1
// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import PackageDescription

/// Every Swift target of ours is compiled with these, so that the layers stay apart: a target sees
/// only what it imports by name, and re-exports nothing by accident.
let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

let package = Package(
    name: "blkferry",
    products: [
        .executable(name: "blkferry", targets: ["blkferry"]),
        .library(name: "BlockReplication", targets: ["BlockReplication"]),
    ],
    // Exact, because no Package.resolved is tracked: every build has the releases that were tested.
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", exact: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", exact: "2.37.6"),
        .package(url: "https://github.com/apple/swift-system", exact: "1.8.1"),
    ],
    targets: [
        .target(name: "CLinuxBlock"),
        .systemLibrary(
            name: "CBlkid", pkgConfig: "blkid", providers: [.apt(["libblkid-dev"])]),
        .systemLibrary(
            name: "COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .target(name: "CCurl"),
        .target(name: "CZstd"),
        .target(name: "CGhash"),
        .target(name: "CTransferRing"),
        .target(
            name: "LinuxIO",
            dependencies: [
                "CLinuxBlock", "CTransferRing",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .target(
            name: "BlockDevices",
            dependencies: [
                "CLinuxBlock", "LinuxIO",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .target(
            name: "LogicalVolumes",
            dependencies: [
                "CLinuxBlock", "LinuxIO", "BlockDevices",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .target(
            name: "Digests", dependencies: ["CGhash", "COpenSSL", "LinuxIO", "BlockDevices"],
            swiftSettings: settings),
        .target(
            name: "DeviceProbe",
            dependencies: [
                "CBlkid", "CLinuxBlock", "LinuxIO", "BlockDevices", "LogicalVolumes", "Digests",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .target(
            name: "Zstandard", dependencies: ["CZstd"],
            swiftSettings: settings),
        .target(
            name: "WireProtocol",
            dependencies: [
                "Zstandard", "LinuxIO", "BlockDevices", "LogicalVolumes", "DeviceProbe",
                "Digests",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .target(
            name: "SyncEngine",
            dependencies: [
                "LinuxIO", "BlockDevices", "Digests",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .target(
            name: "UndoJournal",
            dependencies: [
                "LinuxIO", "BlockDevices", "DeviceProbe", "Digests", "WireProtocol",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .target(
            name: "DeltaFile",
            dependencies: [
                "LinuxIO", "BlockDevices", "Digests", "WireProtocol",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .target(
            name: "BlockClient",
            dependencies: [
                "CCurl", "CLinuxBlock", "Zstandard", "LinuxIO", "BlockDevices", "DeviceProbe",
                "Digests", "WireProtocol", "SyncEngine",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .target(
            name: "BlockServer",
            dependencies: [
                "CLinuxBlock", "COpenSSL", "Zstandard", "LinuxIO", "BlockDevices",
                "DeviceProbe", "Digests", "LogicalVolumes", "WireProtocol", "UndoJournal",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "NIOTLS", package: "swift-nio"),
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            resources: [.embedInCode("Status/page.html")],
            swiftSettings: settings),
        .target(
            name: "BlockReplication",
            dependencies: [
                "Zstandard", "LinuxIO", "BlockDevices", "DeviceProbe", "LogicalVolumes",
                "Digests", "WireProtocol", "SyncEngine", "BlockClient", "UndoJournal", "DeltaFile",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .target(
            name: "Commands",
            dependencies: [
                "CLinuxBlock", "Zstandard", "LinuxIO", "BlockDevices", "DeviceProbe", "Digests",
                "WireProtocol", "SyncEngine", "BlockClient", "BlockReplication", "BlockServer",
                "LogicalVolumes",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .executableTarget(name: "blkferry", dependencies: ["Commands"], swiftSettings: settings),

        .target(name: "CTestSupport", path: "Tests/CTestSupport"),
        .target(
            name: "TestSupport",
            dependencies: [
                "CLinuxBlock", "CTestSupport", "LinuxIO", "BlockDevices",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            path: "Tests/TestSupport",
            swiftSettings: settings),
        .testTarget(
            name: "LinuxIOTests",
            dependencies: [
                "LinuxIO", "TestSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "BlockDevicesTests",
            dependencies: [
                "LinuxIO", "BlockDevices", "TestSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "DeviceProbeTests",
            dependencies: [
                "CLinuxBlock", "LinuxIO", "BlockDevices", "LogicalVolumes", "DeviceProbe",
                "TestSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "LogicalVolumesTests",
            dependencies: [
                "CLinuxBlock", "LinuxIO", "BlockDevices", "LogicalVolumes", "TestSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        // Scenarios of tools/lab run it.
        .executableTarget(
            name: "ChangeMapProbe",
            dependencies: ["LinuxIO", "BlockDevices", "LogicalVolumes"],
            path: "Tests/ChangeMapProbe", swiftSettings: settings),
        // The scenario power-cut runs it.
        .executableTarget(
            name: "ReplayWrites",
            dependencies: [
                "LinuxIO", "BlockDevices",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            path: "Tests/ReplayWrites", swiftSettings: settings),
        .testTarget(
            name: "ZstandardTests", dependencies: ["Zstandard", "TestSupport"],
            swiftSettings: settings),
        .testTarget(
            name: "DigestsTests",
            dependencies: ["COpenSSL", "LinuxIO", "BlockDevices", "Digests", "TestSupport"],
            swiftSettings: settings),
        .testTarget(
            name: "UndoJournalTests",
            dependencies: [
                "LinuxIO", "BlockDevices", "DeviceProbe", "UndoJournal", "TestSupport",
            ],
            swiftSettings: settings),
        .testTarget(
            name: "DeltaFileTests",
            dependencies: ["LinuxIO", "BlockDevices", "DeltaFile", "TestSupport"],
            swiftSettings: settings),
        .testTarget(
            name: "SyncEngineTests",
            dependencies: [
                "LinuxIO", "BlockDevices", "SyncEngine", "TestSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .target(
            name: "FuzzTargets",
            dependencies: [
                "Zstandard", "LinuxIO", "BlockDevices", "DeviceProbe", "LogicalVolumes",
                "Digests", "WireProtocol", "SyncEngine", "DeltaFile",
            ],
            path: "Tests/FuzzTargets", swiftSettings: settings),
        // tools/fuzz builds it with libFuzzer; without, it runs single inputs again.
        .executableTarget(
            name: "fuzz", dependencies: ["FuzzTargets"], path: "Tests/Fuzz",
            swiftSettings: settings),
        // tools/check-instructions counts what it executes.
        .executableTarget(
            name: "instructions",
            dependencies: ["LinuxIO", "BlockDevices", "Digests", "WireProtocol", "SyncEngine"],
            path: "Tests/Instructions", swiftSettings: settings),
        .testTarget(
            name: "WireProtocolTests",
            dependencies: [
                "Zstandard", "LinuxIO", "BlockDevices", "DeviceProbe", "Digests",
                "WireProtocol", "FuzzTargets", "TestSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "BlockClientTests",
            dependencies: [
                "LinuxIO", "BlockDevices", "DeviceProbe", "Digests", "WireProtocol", "SyncEngine",
                "BlockClient", "TestSupport",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .testTarget(
            name: "BlockServerTests",
            dependencies: [
                "Zstandard", "LinuxIO", "BlockDevices", "DeviceProbe", "Digests",
                "WireProtocol", "SyncEngine", "BlockClient", "BlockServer", "BlockReplication",
                "TestSupport",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        // The program of docs/example. Without `package` access it sees what another package would.
        .executableTarget(
            name: "replicate", dependencies: ["BlockReplication"],
            path: "docs/example/Sources/replicate", packageAccess: false),
        .testTarget(
            name: "BlockReplicationTests",
            dependencies: [
                "LinuxIO", "BlockDevices", "DeviceProbe", "LogicalVolumes", "SyncEngine",
                "BlockReplication", "replicate", "TestSupport",
            ],
            swiftSettings: settings),
        .testTarget(
            name: "CommandsTests",
            dependencies: [
                "BlockDevices", "BlockReplication", "Commands", "SyncEngine", "blkferry",
                "TestSupport",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: settings),
    ],
    swiftLanguageModes: [.v6]
)
