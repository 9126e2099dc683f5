// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import WireProtocol

extension ByteSize: ExpressibleByArgument {
    init?(argument: String) { self.init(argument) }
}
