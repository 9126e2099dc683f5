// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// GHASH (NIST SP 800-38D, section 6.4) of data alone, with the carry-less multiplication of 512-bit
// registers (VPCLMULQDQ): some three times as fast as the GMAC of libcrypto 3.0, and twice as fast
// as its Poly1305.
//
// Blocks are kept with their bytes reversed, so that a block is a polynomial's coefficients in order
// and one multiplication is a carry-less product and a Montgomery reduction (S. Gueron, "AES-GCM-SIV
// implementations", RFC 8452, appendix A: GHASH as POLYVAL of the key times x).

#ifndef CGHASH_H
#define CGHASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// What a hash key is multiplied out to.
typedef struct cg_key cg_key;

/// A message in work; all zeros at its beginning.
typedef struct {
    uint8_t sum[16];
    /// Its last bytes, less than a block of them.
    uint8_t rest[16];
    /// Bytes so far.
    uint64_t count;
} cg_state;

/// Whether this processor has the instructions; nothing else here may be called where it has not.
bool cg_is_available(void);

/// Takes the hash key, 16 bytes that the block cipher makes of zeros; NULL without memory.
cg_key *cg_make_key(const uint8_t *hash_key);

/// Wipes it as well.
void cg_free_key(cg_key *key);

/// Takes more of the message.
void cg_update(const cg_key *key, cg_state *state, const void *bytes, size_t count);

/// Ends the message: its GHASH, padding and length included, 16 bytes.
void cg_finish(const cg_key *key, cg_state *state, uint8_t *hash);

#endif
