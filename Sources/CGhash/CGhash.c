// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

#define _GNU_SOURCE // explicit_bzero

#include "CGhash.h"

#include <stdlib.h>
#include <string.h>

#include "Block.h"

#if defined(BLOCK)

#define POWERS 32

struct cg_key {
    /// Powers of the key, the highest first.
    _Alignas(64) uint8_t powers[POWERS][16];
    /// The sum of each power's halves, in both halves.
    _Alignas(64) uint8_t sums[POWERS][16];
    /// Adds whole blocks, a multiple of POWERS.
    void (*add_many)(const cg_key *key, uint8_t *sum, const uint8_t *bytes, size_t count);
};

/// A sum of products, before its reduction: x^0 and x^128 times these, and the products of sums of
/// halves.
typedef struct {
    block low, middle, high;
} product;

INLINE block with_swapped(block a) { return add(a, halves_swapped(a)); }

/// Adds the product of a block and of one of the powers.
INLINE product plus(product sum, block a, const cg_key *key, size_t index) {
    block power = load(key->powers[index]);
    sum.low = add(sum.low, product_of_low(a, power));
    sum.high = add(sum.high, product_of_high(a, power));
    sum.middle = add(sum.middle, product_of_low(with_swapped(a), load(key->sums[index])));
    return sum;
}

/// Divides by x^128, modulo x^128 + x^127 + x^126 + x^121 + 1, 64 bits at a time.
INLINE block reduced(product sum) {
    static const uint64_t polynomial[2] = {0xc200000000000000, 0xc200000000000000};
    const block divisor = load((const uint8_t *)polynomial);
    block middle = add(sum.middle, add(sum.low, sum.high));
    block low = add(sum.low, shifted_up(middle));
    for (int i = 0; i < 2; i++) low = add(halves_swapped(low), product_of_low(low, divisor));
    return add(add(sum.high, shifted_down(middle)), low);
}

INLINE product nothing(void) { return (product){zero(), zero(), zero()}; }

/// Adds whole blocks to the sum: ((sum + b1)·H^n + b2·H^(n-1) + ... + bn·H), n at a time. The block
/// that needs the sum so far comes last, so that the others do not wait for it.
BLOCK static void add_one_each(
    const cg_key *key, uint8_t *sum, const uint8_t *bytes, size_t count) {
    block value = load(sum);
    for (; count >= POWERS; bytes += 16 * POWERS, count -= POWERS) {
        product all = nothing();
#pragma clang loop unroll(full)
        for (int i = 1; i < POWERS; i++) all = plus(all, reversed(load(bytes + 16 * i)), key, i);
        value = reduced(plus(all, add(reversed(load(bytes)), value), key, 0));
    }
    if (count > 0) {
        size_t start = POWERS - count;
        product all = nothing();
        for (size_t i = 1; i < count; i++)
            all = plus(all, reversed(load(bytes + 16 * i)), key, start + i);
        value = reduced(plus(all, add(reversed(load(bytes)), value), key, start));
    }
    store(sum, value);
}

#if defined(__x86_64__)

#define TWO __attribute__((target("avx2,pclmul,vpclmulqdq")))
#define FOUR __attribute__((target("avx512f,avx512bw,avx512vl,pclmul,vpclmulqdq")))

TWO static inline block total_of_two(__m256i two) {
    return add(_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1));
}

FOUR static inline block total_of_four(__m512i four) {
    __m256i half = _mm512_extracti64x4_epi64(four, 1);
    return total_of_two(_mm256_xor_si256(_mm512_castsi512_si256(four), half));
}

#define WIDTH 2
#define WIDE TWO
#define ADD_MANY add_two_each
#define OF(name) _mm256_##name
#define VECTOR __m256i
#define XOR _mm256_xor_si256
#define LOAD(bytes) _mm256_loadu_si256((const __m256i *)(bytes))
#define REPEATED _mm256_broadcastsi128_si256
#define EXTENDED _mm256_zextsi128_si256
#define TOTAL total_of_two
#include "AddMany.h"

#define WIDTH 4
#define WIDE FOUR
#define ADD_MANY add_four_each
#define OF(name) _mm512_##name
#define VECTOR __m512i
#define XOR _mm512_xor_si512
#define LOAD(bytes) _mm512_loadu_si512(bytes)
#define REPEATED _mm512_broadcast_i32x4
#define EXTENDED _mm512_zextsi128_si512
#define TOTAL total_of_four
#include "AddMany.h"

int cg_widest(void) {
    if (!__builtin_cpu_supports("pclmul") || !__builtin_cpu_supports("ssse3")) return 0;
    if (!__builtin_cpu_supports("vpclmulqdq") || !__builtin_cpu_supports("avx2")) return 1;
    bool is_wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512vl");
    return is_wide ? 4 : 2;
}

bool cg_is_fast(void) {
    return cg_widest() > (__builtin_cpu_supports("avx512ifma") ? 1 : 0);
}

#else

#include <sys/auxv.h>
#define add_two_each add_one_each
#define add_four_each add_one_each

// HWCAP_PMULL of the kernel's arch/arm64/include/uapi/asm/hwcap.h.
int cg_widest(void) { return getauxval(AT_HWCAP) >> 4 & 1; }

bool cg_is_fast(void) { return cg_widest() > 0; }

#endif

BLOCK cg_key *cg_make_key(const uint8_t *hash_key, int width) {
    cg_key *key = aligned_alloc(_Alignof(cg_key), sizeof *key);
    if (key == NULL) return NULL;
    key->add_many = width == 4 ? add_four_each : width == 2 ? add_two_each : add_one_each;
    uint64_t halves[2];
    store((uint8_t *)halves, reversed(load(hash_key)));
    // Times x, for the bit by which a product of reversed polynomials is too low.
    uint64_t carry = 0 - (halves[1] >> 63);
    halves[1] = (halves[1] << 1 | halves[0] >> 63) ^ (carry & 0xc200000000000000);
    halves[0] = halves[0] << 1 ^ (carry & 1);
    block power = load((const uint8_t *)halves);
    for (int i = POWERS - 1; i >= 0; i--) {
        store(key->powers[i], power);
        store(key->sums[i], with_swapped(power));
        power = reduced(plus(nothing(), power, key, POWERS - 1));
    }
    explicit_bzero(halves, sizeof halves);
    return key;
}

void cg_free_key(cg_key *key) {
    explicit_bzero(key, sizeof *key);
    free(key);
}

void cg_update(const cg_key *key, cg_state *state, const void *message, size_t count) {
    const uint8_t *bytes = message;
    size_t used = state->count % 16;
    state->count += count;
    if (used > 0) {
        size_t part = count < 16 - used ? count : 16 - used;
        if (part > 0) memcpy(state->rest + used, bytes, part);
        if (used + part < 16) return;
        add_one_each(key, state->sum, state->rest, 1);
        bytes += part;
        count -= part;
    }
    size_t blocks = count / 16, many = blocks / POWERS * POWERS;
    if (many > 0) key->add_many(key, state->sum, bytes, many);
    if (blocks > many) add_one_each(key, state->sum, bytes + 16 * many, blocks - many);
    if (count % 16 > 0) memcpy(state->rest, bytes + 16 * blocks, count % 16);
}

BLOCK void cg_finish(const cg_key *key, cg_state *state, uint8_t *hash) {
    size_t used = state->count % 16;
    if (used > 0) {
        memset(state->rest + used, 0, 16 - used);
        add_one_each(key, state->sum, state->rest, 1);
    }
    // The lengths in bits of the authenticated data, which is all of it, and of the encrypted data.
    uint64_t lengths[2] = {__builtin_bswap64(8 * state->count), 0};
    add_one_each(key, state->sum, (const uint8_t *)lengths, 1);
    store(hash, reversed(load(state->sum)));
}

#else

int cg_widest(void) { return 0; }
bool cg_is_fast(void) { return false; }
cg_key *cg_make_key(const uint8_t *hash_key, int width) { abort(); }
void cg_free_key(cg_key *key) { abort(); }
void cg_update(const cg_key *key, cg_state *state, const void *bytes, size_t count) { abort(); }
void cg_finish(const cg_key *key, cg_state *state, uint8_t *hash) { abort(); }

#endif
