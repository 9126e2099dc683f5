# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""The digests of the wire protocol, without blkferry: Poly1305 from RFC 8439, section 2.5, GMAC
from NIST SP 800-38D, sections 6.3 and 6.4, and SHA-256 of Python."""

import hashlib
import subprocess
import sys

KEY = bytes(range(1, 33))


def poly1305(data, key=KEY):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    s = int.from_bytes(key[16:], "little")
    value = 0
    for start in range(0, len(data), 16):
        value = (value + int.from_bytes(data[start:start + 16] + b"\1", "little")) * r % (2**130 - 5)
    return ((value + s) % 2**128).to_bytes(16, "little")


def aes256(block, key=KEY):
    return subprocess.run(["openssl", "enc", "-aes-256-ecb", "-nopad", "-K", key.hex()],
                          input=block, capture_output=True, check=True).stdout


def times(x, y):
    """The product in GF(2^128); the first bit of a block is the lowest coefficient."""
    product = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            product ^= y
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return product


HASH_KEY = int.from_bytes(aes256(bytes(16)), "big")
MASK = int.from_bytes(aes256(bytes(15) + b"\1"), "big")


def gmac(data):
    """Under an IV of twelve zero bytes, so that the first counter block is 1."""
    value = 0
    padded = data + bytes(-len(data) % 16) + (8 * len(data)).to_bytes(8, "big") + bytes(8)
    for start in range(0, len(padded), 16):
        value = times(value ^ int.from_bytes(padded[start:start + 16], "big"), HASH_KEY)
    return (value ^ MASK).to_bytes(16, "big")


OPENSSL = {"poly1305": ["POLY1305"],
           "gmac": ["-cipher", "AES-256-GCM", "-macopt", "hexiv:" + "00" * 12, "GMAC"]}


def openssl_mac(name, data):
    return bytes.fromhex(subprocess.run(
        ["openssl", "mac", "-macopt", f"hexkey:{KEY.hex()}", "-in", "/dev/stdin", *OPENSSL[name]],
        input=data, capture_output=True, check=True).stdout.decode().strip())


DIGESTS = {"poly1305": poly1305, "gmac": gmac, "sha256": lambda data: hashlib.sha256(data).digest()}
CHECK = "--check" in sys.argv


def digest(name, data):
    result = DIGESTS[name](data)
    if CHECK and name in OPENSSL:
        assert openssl_mac(name, data) == result
    return result
