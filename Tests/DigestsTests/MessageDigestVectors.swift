// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

extension DigestVector {
    /// RFC 1321, appendix A.5.
    static let rfc1321 = vectors(
        """
        Method = md5
        Text =
        MD = d41d8cd98f00b204e9800998ecf8427e

        Method = md5
        Text = a
        MD = 0cc175b9c0f1b6a831c399e269772661

        Method = md5
        Text = abc
        MD = 900150983cd24fb0d6963f7d28e17f72

        Method = md5
        Text = message digest
        MD = f96b697d7cb7938d525a2f31aaf161d0

        Method = md5
        Text = abcdefghijklmnopqrstuvwxyz
        MD = c3fcd3d76192e4007dfb496cca67e13b

        Method = md5
        Text = ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789
        MD = d174ab98d277d9f5a5611c2c9f419d9f

        Method = md5
        Text = 12345678901234567890123456789012345678901234567890123456789012345678901234567890
        MD = 57edf4a22be3c955ac49da2e2107b67a
        """)

    /// RFC 7693, appendices A and B.
    static let rfc7693 = vectors(
        """
        Method = blake2b512
        Text = abc
        MD = ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d17d87c5392aab792d
            c252d5de4533cc9518d38aa8dbf1925ab92386edd4009923

        Method = blake2s256
        Text = abc
        MD = 508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982
        """)

    /// GM/T 0004-2012, appendix A.1.
    static let sm3Standard = vectors(
        """
        Method = sm3
        Text = abc
        MD = 66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0
        """)

    /// NIST, "Examples with Intermediate Values" for FIPS 180-4: SHA1.pdf, SHA224.pdf, SHA256.pdf,
    /// SHA384.pdf, SHA512.pdf, SHA512_256.pdf.
    static let fipsExamples = vectors(
        """
        Method = sha1
        Text = abc
        MD = a9993e364706816aba3e25717850c26c9cd0d89d

        Method = sha1
        Text = abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq
        MD = 84983e441c3bd26ebaae4aa1f95129e5e54670f1

        Method = sha224
        Text = abc
        MD = 23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7

        Method = sha224
        Text = abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq
        MD = 75388b16512776cc5dba5da1fd890150b0c6455cb4f58b1952522525

        Method = sha256
        Text = abc
        MD = ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad

        Method = sha256
        Text = abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq
        MD = 248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1

        Method = sha384
        Text = abc
        MD = cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc23
            58baeca134c825a7

        Method = sha512
        Text = abc
        MD = ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a8
            36ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f

        Method = sha512-256
        Text = abc
        MD = 53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23
        """)
}
