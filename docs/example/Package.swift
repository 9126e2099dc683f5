// swift-tools-version: 6.1
// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import PackageDescription

let package = Package(
    name: "replicate",
    // A package of your own names blkferry's repository and a version here.
    dependencies: [.package(name: "blkferry", path: "../..")],
    targets: [
        .executableTarget(
            name: "replicate",
            dependencies: [.product(name: "BlockReplication", package: "blkferry")])
    ]
)
