// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import COpenSSL
internal import Glibc
internal import LinuxIO

/// A new P-256 key, and a certificate that the key has signed.
struct SelfSignedCertificate {
    /// The form of SEC 1, in DER.
    let key: [UInt8]
    /// X.509, in DER.
    let certificate: [UInt8]

    private static let day = 86_400
    /// Starts a day ago, for clients whose clocks are slow.
    private static let lifetime = (from: -day, to: 365 * day)

    /// - Parameter hosts: names and addresses of the server; those that no certificate can hold are
    ///   left out.
    init(hosts: [String]) throws(IOError) {
        guard let key = Self.makeKey() else { throw Self.failure("make key") }
        defer { EVP_PKEY_free(key) }
        guard let certificate = X509_new() else { throw Self.failure("make certificate") }
        defer { X509_free(certificate) }
        guard Self.fill(certificate, key, hosts), X509_sign(certificate, key, EVP_sha256()) > 0,
            let keyBytes = Self.bytes({ i2d_PrivateKey(key, $0) }),
            let certificateBytes = Self.bytes({ i2d_X509(certificate, $0) })
        else { throw Self.failure("make certificate") }
        self.key = keyBytes
        self.certificate = certificateBytes
    }

    private static func makeKey() -> OpaquePointer? {
        guard let context = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, nil) else { return nil }
        defer { EVP_PKEY_CTX_free(context) }
        var key: OpaquePointer?
        guard EVP_PKEY_keygen_init(context) > 0,
            EVP_PKEY_CTX_set_ec_paramgen_curve_nid(context, NID_X9_62_prime256v1) > 0,
            EVP_PKEY_keygen(context, &key) > 0
        else { return nil }
        return key
    }

    private static func fill(
        _ certificate: OpaquePointer, _ key: OpaquePointer, _ hosts: [String]
    ) -> Bool {
        // Version 3 is encoded as 2 (RFC 5280, section 4.1.2.1).
        guard X509_set_version(certificate, 2) > 0, setSerial(certificate),
            X509_gmtime_adj(X509_getm_notBefore(certificate), lifetime.from) != nil,
            X509_gmtime_adj(X509_getm_notAfter(certificate), lifetime.to) != nil,
            X509_set_pubkey(certificate, key) > 0,
            let name = X509_get_subject_name(certificate),
            X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, "blkferry", -1, -1, 0) > 0,
            X509_set_issuer_name(certificate, name) > 0,
            add(NID_basic_constraints, "critical,CA:FALSE", to: certificate),
            add(NID_ext_key_usage, "serverAuth", to: certificate)
        else { return false }
        let names = hosts.compactMap(alternativeName)
        return names.isEmpty
            || add(NID_subject_alt_name, names.joined(separator: ","), to: certificate)
    }

    /// 127 random bits: positive and unique.
    private static func setSerial(_ certificate: OpaquePointer) -> Bool {
        guard let number = BN_new() else { return false }
        defer { BN_free(number) }
        return BN_rand(number, 127, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) > 0
            && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != nil
    }

    private static func alternativeName(_ host: String) -> String? {
        var address = in6_addr()
        if inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1 {
            return "IP:\(host)"
        }
        // Commas and colons are syntax in libcrypto's text form.
        let isName = host.utf8.allSatisfy { byte in
            (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
                || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
                || byte == UInt8(ascii: "-") || byte == UInt8(ascii: ".")
        }
        return isName && !host.isEmpty ? "DNS:\(host)" : nil
    }

    private static func add(
        _ kind: Int32, _ value: String, to certificate: OpaquePointer
    ) -> Bool {
        guard let extra = X509V3_EXT_conf_nid(nil, nil, kind, value) else { return false }
        defer { X509_EXTENSION_free(extra) }
        return X509_add_ext(certificate, extra, -1) > 0
    }

    private static func bytes(
        _ encode: (UnsafeMutablePointer<UnsafeMutablePointer<UInt8>?>?) -> Int32
    ) -> [UInt8]? {
        let count = Int(encode(nil))
        guard count > 0 else { return nil }
        return [UInt8](unsafeUninitializedCapacity: count) { buffer, written in
            // The call moves the pointer to the end.
            var place = buffer.baseAddress
            written = Int(encode(&place))
        }
    }

    private static func failure(_ operation: String) -> IOError {
        ERR_clear_error()
        return IOError("certificate", operation, reason: "libcrypto failed")
    }
}
