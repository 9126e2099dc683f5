// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

#define _GNU_SOURCE // explicit_bzero

#include "CGhash.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)

#include <immintrin.h>

#define POWERS 32

/// Powers of the key, the highest first, then zeros, since some code reads four at a time.
struct cg_key {
    _Alignas(64) uint8_t powers[POWERS + 3][16];
};

#define VECTOR __attribute__((target("avx512f,avx512bw,avx512vl,pclmul,vpclmulqdq")))
#define INLINE VECTOR static inline

bool cg_is_available(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("vpclmulqdq");
}

/// A sum of products, before its reduction: x^0, x^64 and x^128 times these.
typedef struct {
    __m512i low, middle, high;
} product;

INLINE __m128i byte_order(void) {
    return _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

INLINE __m128i reversed(__m128i block) { return _mm_shuffle_epi8(block, byte_order()); }

INLINE __m512i four_reversed(__m512i blocks) {
    return _mm512_shuffle_epi8(blocks, _mm512_broadcast_i32x4(byte_order()));
}

/// Divides by x^128, modulo x^128 + x^127 + x^126 + x^121 + 1, 64 bits at a time.
INLINE __m128i reduce(__m128i low, __m128i middle, __m128i high) {
    const __m128i polynomial = _mm_set1_epi64x((long long)0xc200000000000000);
    low = _mm_xor_si128(low, _mm_slli_si128(middle, 8));
    high = _mm_xor_si128(high, _mm_srli_si128(middle, 8));
    for (int i = 0; i < 2; i++) {
        __m128i part = _mm_clmulepi64_si128(low, polynomial, 0x00);
        low = _mm_xor_si128(_mm_shuffle_epi32(low, 0x4e), part);
    }
    return _mm_xor_si128(high, low);
}

INLINE __m128i multiply(__m128i a, __m128i b) {
    __m128i middle = _mm_xor_si128(
        _mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10));
    return reduce(
        _mm_clmulepi64_si128(a, b, 0x00), middle, _mm_clmulepi64_si128(a, b, 0x11));
}

/// Adds the products of four blocks and four powers.
INLINE product add(product sum, __m512i blocks, __m512i powers) {
    sum.low = _mm512_xor_si512(sum.low, _mm512_clmulepi64_epi128(blocks, powers, 0x00));
    sum.high = _mm512_xor_si512(sum.high, _mm512_clmulepi64_epi128(blocks, powers, 0x11));
    // 0x96: the exclusive or of all three.
    sum.middle = _mm512_ternarylogic_epi64(
        sum.middle, _mm512_clmulepi64_epi128(blocks, powers, 0x01),
        _mm512_clmulepi64_epi128(blocks, powers, 0x10), 0x96);
    return sum;
}

INLINE __m128i total(__m512i four) {
    __m256i two = _mm256_xor_si256(
        _mm512_castsi512_si256(four), _mm512_extracti64x4_epi64(four, 1));
    return _mm_xor_si128(_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1));
}

INLINE __m128i reduced(product sum) {
    return reduce(total(sum.low), total(sum.middle), total(sum.high));
}

INLINE product nothing(void) {
    __m512i zero = _mm512_setzero_si512();
    return (product){zero, zero, zero};
}

VECTOR cg_key *cg_make_key(const uint8_t *hash_key) {
    cg_key *key = aligned_alloc(_Alignof(cg_key), sizeof *key);
    if (key == NULL) return NULL;
    memset(key, 0, sizeof *key);
    uint64_t halves[2];
    _mm_storeu_si128((__m128i *)halves, reversed(_mm_loadu_si128((const __m128i *)hash_key)));
    // Times x, for the bit by which a product of reversed polynomials is too low.
    uint64_t carry = 0 - (halves[1] >> 63);
    halves[1] = (halves[1] << 1 | halves[0] >> 63) ^ (carry & 0xc200000000000000);
    halves[0] = halves[0] << 1 ^ (carry & 1);
    const __m128i first = _mm_loadu_si128((const __m128i *)halves);
    __m128i power = first;
    for (int i = POWERS - 1; i >= 0; i--) {
        _mm_store_si128((__m128i *)key->powers[i], power);
        power = multiply(power, first);
    }
    return key;
}

void cg_free_key(cg_key *key) {
    explicit_bzero(key, sizeof *key);
    free(key);
}

/// Adds whole blocks to the sum: ((sum + b1)·H^n + b2·H^(n-1) + ... + bn·H), n at a time.
VECTOR static void add_blocks(
    const cg_key *key, uint8_t *sum, const uint8_t *bytes, size_t count) {
    __m128i value = _mm_loadu_si128((const __m128i *)sum);
    while (count >= POWERS) {
        product all = nothing();
        // The four that need the sum so far come last, so that the others do not wait for it.
        for (int i = 4; i < POWERS; i += 4) {
            __m512i blocks = _mm512_loadu_si512(bytes + 16 * i);
            all = add(all, four_reversed(blocks), _mm512_load_si512(key->powers[i]));
        }
        __m512i blocks = _mm512_xor_si512(
            four_reversed(_mm512_loadu_si512(bytes)), _mm512_zextsi128_si512(value));
        value = reduced(add(all, blocks, _mm512_load_si512(key->powers[0])));
        bytes += 16 * POWERS;
        count -= POWERS;
    }
    while (count > 0) {
        size_t part = count < 4 ? count : 4;
        // A masked load reads only the remaining blocks, and sets the rest to zero.
        __m512i blocks = _mm512_maskz_loadu_epi64((__mmask8)((1u << 2 * part) - 1), bytes);
        blocks = _mm512_xor_si512(four_reversed(blocks), _mm512_zextsi128_si512(value));
        __m512i powers = _mm512_loadu_si512(key->powers[POWERS - part]);
        value = reduced(add(nothing(), blocks, powers));
        bytes += 16 * part;
        count -= part;
    }
    _mm_storeu_si128((__m128i *)sum, value);
}

void cg_update(const cg_key *key, cg_state *state, const void *message, size_t count) {
    const uint8_t *bytes = message;
    size_t used = state->count % 16;
    state->count += count;
    if (used > 0) {
        size_t part = count < 16 - used ? count : 16 - used;
        if (part > 0) memcpy(state->rest + used, bytes, part);
        if (used + part < 16) return;
        add_blocks(key, state->sum, state->rest, 1);
        bytes += part;
        count -= part;
    }
    add_blocks(key, state->sum, bytes, count / 16);
    if (count % 16 > 0) memcpy(state->rest, bytes + count / 16 * 16, count % 16);
}

VECTOR void cg_finish(const cg_key *key, cg_state *state, uint8_t *hash) {
    size_t used = state->count % 16;
    if (used > 0) {
        memset(state->rest + used, 0, 16 - used);
        add_blocks(key, state->sum, state->rest, 1);
    }
    // The lengths in bits of the authenticated data, which is all of it, and of the encrypted data.
    uint64_t lengths[2] = {__builtin_bswap64(8 * state->count), 0};
    add_blocks(key, state->sum, (const uint8_t *)lengths, 1);
    __m128i sum = _mm_loadu_si128((const __m128i *)state->sum);
    _mm_storeu_si128((__m128i *)hash, reversed(sum));
}

#else

bool cg_is_available(void) { return false; }
cg_key *cg_make_key(const uint8_t *hash_key) { abort(); }
void cg_free_key(cg_key *key) { abort(); }
void cg_update(const cg_key *key, cg_state *state, const void *bytes, size_t count) { abort(); }
void cg_finish(const cg_key *key, cg_state *state, uint8_t *hash) { abort(); }

#endif
