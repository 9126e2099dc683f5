// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import TestSupport
import Testing

@Suite(.blocking, .timeLimit(.minutes(60))) struct CredentialFileTests {
    @Test(arguments: ["", "garbage\n", "-----BEGIN PRIVATE KEY-----\nAAAA\n"])
    func `a file of certificates that holds none is wrong usage`(text: String) throws {
        let scratch = try ScratchDirectory()
        let file = scratch.file("file")
        try must("tee", file, input: text)
        for option in ["--cacert", "--cert"] {
            let result = try blkferry("list", "https://127.0.0.1:1", option, file)
            #expect(result.status == 64, "\(result)")
            #expect(result.errors.contains("\(file): it contains no certificate in PEM form"))
            #expect(result.errors.contains("openssl x509 "), "\(result)")
        }
    }
}
