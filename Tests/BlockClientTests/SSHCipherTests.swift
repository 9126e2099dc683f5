// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Testing

@testable import BlockClient

@Suite struct SSHCipherTests {
    @Test(
        arguments: [
            (
                "chacha20-poly1305@openssh.com,aes256-ctr,aes256-gcm@openssh.com,"
                    + "aes128-gcm@openssh.com",
                "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,"
                    + "aes256-ctr"
            ),
            // What the user does not permit stays out.
            (
                "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com",
                "aes256-gcm@openssh.com,chacha20-poly1305@openssh.com"
            ),
            ("chacha20-poly1305@openssh.com", nil), ("aes256-ctr,aes128-ctr", nil),
            ("aes128-gcm@openssh.com,aes256-ctr", nil), ("", nil),
        ])
    func `the fast ciphers of the user's list come first`(list: String, expected: String?) {
        #expect(SSHCiphers.reordered(in: "host h\nciphers \(list)\nport 22\n") == expected)
    }

    @Test func `output that is no configuration changes nothing`() {
        for text in ["", "ciphers", "xciphers a,aes128-gcm@openssh.com", "unknown option -- G"] {
            #expect(SSHCiphers.reordered(in: text) == nil)
            #expect(SSHConfiguration.keepalive(in: text).isEmpty)
        }
    }

    @Test func `ssh's keepalive is set only where the user has not set it`() {
        func options(_ seconds: Int) -> [String] {
            SSHConfiguration.keepalive(in: "host h\nserveraliveinterval \(seconds)\nport 22\n")
        }
        #expect(options(0) == ["-oServerAliveInterval=30", "-oServerAliveCountMax=4"])
        #expect(options(60).isEmpty)
    }
}
