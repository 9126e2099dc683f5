// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Foundation

/// A certification authority of a test's own, made with openssl(1).
package struct TestAuthority {
    /// Files in PEM.
    package struct Certificate {
        package let path: String
        package let key: String

        package init(path: String, key: String) {
            self.path = path
            self.key = key
        }
    }

    private let scratch: ScratchDirectory
    private let name: String

    /// - Parameters:
    ///   - name: of its files, unlike that of another in the same directory.
    ///   - scratch: where the files are made.
    /// - Throws: when openssl fails.
    package init(_ name: String, in scratch: ScratchDirectory) throws {
        self.name = name
        self.scratch = scratch
        try must(
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", scratch.file("\(name).key"), "-out", path, "-subj", "/CN=\(name)",
            "-days", "2")
    }

    /// Its own certificate.
    package var path: String { scratch.file("\(name).pem") }

    /// Signs a certificate for a fresh key.
    ///
    /// - Parameters:
    ///   - commonName: of the one it is for.
    ///   - alternatives: as in `subjectAltName`: `DNS:localhost`, `IP:127.0.0.1`.
    ///   - days: that it is valid; negative for one that has expired.
    /// - Returns: where it is.
    /// - Throws: when openssl fails.
    package func certificate(
        _ commonName: String, for alternatives: String? = nil, days: Int = 2
    ) throws -> Certificate {
        let file = "\(name)-" + commonName.map { $0.isLetter ? String($0) : "_" }.joined()
        let (key, request) = (scratch.file("\(file).key"), scratch.file("\(file).csr"))
        try must(
            "openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", key, "-out", request, "-subj", "/CN=\(commonName)")
        let path = scratch.file("\(file).pem")
        var command = [
            "openssl", "x509", "-req", "-in", request, "-CA", self.path, "-CAkey",
            scratch.file("\(name).key"), "-CAcreateserial", "-out", path, "-days", "\(days)",
        ]
        if let alternatives {
            let extra = scratch.file("\(file).ext")
            try "subjectAltName=\(alternatives)".write(
                toFile: extra, atomically: false, encoding: .utf8)
            command += ["-extfile", extra]
        }
        try must(command)
        return Certificate(path: path, key: key)
    }
}
