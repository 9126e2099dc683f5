// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// One block of 16 bytes in a register, and its operations on x86-64 and arm64.

#if defined(__x86_64__)

#include <immintrin.h>

typedef __m128i block;

#define BLOCK __attribute__((target("ssse3,pclmul")))
#define INLINE BLOCK __attribute__((always_inline)) static inline

INLINE block load(const uint8_t *bytes) { return _mm_loadu_si128((const __m128i *)bytes); }
INLINE void store(uint8_t *bytes, block a) { _mm_storeu_si128((__m128i *)bytes, a); }
INLINE block zero(void) { return _mm_setzero_si128(); }
INLINE block add(block a, block b) { return _mm_xor_si128(a, b); }
INLINE block reversed(block a) {
    return _mm_shuffle_epi8(a, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}
INLINE block halves_swapped(block a) { return _mm_shuffle_epi32(a, 0x4e); }
/// Times x^64, and divided by it.
INLINE block shifted_up(block a) { return _mm_slli_si128(a, 8); }
INLINE block shifted_down(block a) { return _mm_srli_si128(a, 8); }
INLINE block product_of_low(block a, block b) { return _mm_clmulepi64_si128(a, b, 0x00); }
INLINE block product_of_high(block a, block b) { return _mm_clmulepi64_si128(a, b, 0x11); }

#elif defined(__aarch64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__

#include <arm_neon.h>

typedef uint8x16_t block;

#define BLOCK __attribute__((target("+aes")))
#define INLINE BLOCK __attribute__((always_inline)) static inline

INLINE block load(const uint8_t *bytes) { return vld1q_u8(bytes); }
INLINE void store(uint8_t *bytes, block a) { vst1q_u8(bytes, a); }
INLINE block zero(void) { return vdupq_n_u8(0); }
INLINE block add(block a, block b) { return veorq_u8(a, b); }
INLINE block halves_swapped(block a) { return vextq_u8(a, a, 8); }
INLINE block reversed(block a) { return halves_swapped(vrev64q_u8(a)); }
INLINE block shifted_up(block a) { return vextq_u8(zero(), a, 8); }
INLINE block shifted_down(block a) { return vextq_u8(a, zero(), 8); }
INLINE block product_of_low(block a, block b) {
    return vreinterpretq_u8_p128(vmull_p64(
        vgetq_lane_p64(vreinterpretq_p64_u8(a), 0), vgetq_lane_p64(vreinterpretq_p64_u8(b), 0)));
}
INLINE block product_of_high(block a, block b) {
    return vreinterpretq_u8_p128(
        vmull_high_p64(vreinterpretq_p64_u8(a), vreinterpretq_p64_u8(b)));
}

#endif
