// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// add_one_each with registers of WIDTH blocks. CGhash.c includes it once for each width.

WIDE static void ADD_MANY(const cg_key *key, uint8_t *sum, const uint8_t *bytes, size_t count) {
    const VECTOR order = REPEATED(
        _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    block value = load(sum);
    for (; count > 0; bytes += 16 * POWERS, count -= POWERS) {
        VECTOR low = EXTENDED(zero()), middle = low, high = low;
#pragma clang loop unroll(full)
        for (int next = WIDTH; next <= POWERS; next += WIDTH) {
            // The first blocks come last.
            int i = next % POWERS;
            VECTOR a = OF(shuffle_epi8)(LOAD(bytes + 16 * i), order);
            if (i == 0) a = XOR(a, EXTENDED(value));
            VECTOR power = LOAD(key->powers[i]);
            low = XOR(low, OF(clmulepi64_epi128)(a, power, 0x00));
            high = XOR(high, OF(clmulepi64_epi128)(a, power, 0x11));
            VECTOR both = XOR(a, OF(shuffle_epi32)(a, 0x4e));
            middle = XOR(middle, OF(clmulepi64_epi128)(both, LOAD(key->sums[i]), 0x00));
        }
        value = reduced((product){TOTAL(low), TOTAL(middle), TOTAL(high)});
    }
    store(sum, value);
}

#undef WIDTH
#undef WIDE
#undef ADD_MANY
#undef OF
#undef VECTOR
#undef XOR
#undef LOAD
#undef REPEATED
#undef EXTENDED
#undef TOTAL
