// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// GHASH (NIST SP 800-38D, section 6.4) of authenticated data, without encrypted data. It uses the
// processor's carry-less multiplication on as many blocks of 16 bytes as its registers hold: one
// (PCLMULQDQ, or PMULL of arm64), two (VPCLMULQDQ) or four (VPCLMULQDQ with AVX-512). See
// docs/decisions/0013-gmac.md for how fast these are.
//
// The bytes of each block are reversed, so that a block holds a polynomial's coefficients in order.
// One multiplication is then a carry-less product and a Montgomery reduction (S. Gueron, "AES-GCM-SIV
// implementations", RFC 8452, appendix A: GHASH as POLYVAL of the key times x). A product takes three
// multiplications of halves (Karatsuba).

#ifndef CGHASH_H
#define CGHASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// The powers of a hash key.
typedef struct cg_key cg_key;

/// An unfinished message; all zeros before its first byte.
typedef struct {
    uint8_t sum[16];
    /// The bytes since the last whole block.
    uint8_t rest[16];
    /// Bytes of the message so far.
    uint64_t count;
} cg_state;

/// The blocks in the widest registers that this processor multiplies: 4, 2, 1, or 0 if it cannot.
int cg_widest(void);

/// Whether this is faster than libcrypto's Poly1305, which uses AVX-512 IFMA if the processor has it.
/// On arm64 that is assumed, not measured.
bool cg_is_fast(void);

/// Makes the powers of a hash key, the 16 bytes to which the cipher encrypts zeros; NULL without
/// memory.
///
/// `width` is at most cg_widest(), and 1, 2 or 4.
cg_key *cg_make_key(const uint8_t *hash_key, int width);

/// Wipes the key and frees it.
void cg_free_key(cg_key *key);

/// Appends bytes to the message.
void cg_update(const cg_key *key, cg_state *state, const void *bytes, size_t count);

/// Ends the message and writes its GHASH, 16 bytes, which includes padding and length.
void cg_finish(const cg_key *key, cg_state *state, uint8_t *hash);

#endif
