// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors
//
// Compares Sources/CGhash with the definition (NIST SP 800-38D, algorithms 1 and 2), for every width of
// this processor, messages of 0 to 2100 bytes, any start and any cut.
//
// Usage: ghash-test [SEED]

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "CGhash.h"

#define LONGEST 2100

/// product = x·y, a bit at a time.
static void multiply(uint8_t product[16], const uint8_t x[16], const uint8_t y[16]) {
    uint8_t shifted[16];
    memcpy(shifted, y, 16);
    memset(product, 0, 16);
    for (int bit = 0; bit < 128; bit++) {
        if (x[bit / 8] >> (7 - bit % 8) & 1)
            for (int i = 0; i < 16; i++) product[i] ^= shifted[i];
        int carry = shifted[15] & 1;
        for (int i = 15; i > 0; i--) shifted[i] = (uint8_t)(shifted[i] >> 1 | shifted[i - 1] << 7);
        shifted[0] = (uint8_t)(shifted[0] >> 1 ^ (carry ? 0xe1 : 0));
    }
}

static void hash_slowly(
    uint8_t hash[16], const uint8_t key[16], const uint8_t *message, size_t count) {
    uint8_t sum[16] = {0};
    for (size_t start = 0; start < count; start += 16) {
        for (size_t i = 0; i < 16 && start + i < count; i++) sum[i] ^= message[start + i];
        multiply(hash, sum, key);
        memcpy(sum, hash, 16);
    }
    for (int i = 0; i < 8; i++) sum[i] ^= (uint8_t)((uint64_t)count * 8 >> (56 - 8 * i));
    multiply(hash, sum, key);
}

static void fill(uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) bytes[i] = (uint8_t)(rand() >> 8);
}

int main(int count, char **words) {
    unsigned seed = count > 1 ? (unsigned)strtoul(words[1], NULL, 10) : 1;
    srand(seed);
    // D. McGrew, J. Viega, "The Galois/Counter Mode of Operation", appendix B, test case 2: X1.
    const char *h = "\x66\xe9\x4b\xd4\xef\x8a\x2c\x3b\x88\x4c\xfa\x59\xca\x34\x2b\x2e";
    const char *c = "\x03\x88\xda\xce\x60\xb6\xa3\x92\xf3\x28\xc2\xb9\x71\xb2\xfe\x78";
    const char *x = "\x5e\x2e\xc7\x46\x91\x70\x62\x88\x2c\x85\xb0\x68\x53\x53\xde\xb7";
    uint8_t product[16], bytes[LONGEST + 64], key[16], slow[16], fast[16];
    multiply(product, (const uint8_t *)c, (const uint8_t *)h);
    if (memcmp(product, x, 16) != 0) return fputs("the reference is wrong\n", stderr), 1;

    int widest = cg_widest();
    if (widest == 0) return fputs("this processor has no instruction for GHASH\n", stderr), 1;
    for (int width = 1; width <= widest; width *= 2) {
        for (size_t length = 0; length <= LONGEST; length++) {
            fill(bytes, sizeof bytes);
            fill(key, sizeof key);
            const uint8_t *message = bytes + rand() % 64;
            size_t cut = length > 0 ? (size_t)rand() % length : 0;
            cg_key *powers = cg_make_key(key, width);
            if (powers == NULL) return fputs("no memory\n", stderr), 1;
            cg_state state = {0};
            cg_update(powers, &state, message, cut);
            cg_update(powers, &state, message + cut, length - cut);
            cg_finish(powers, &state, fast);
            cg_free_key(powers);
            hash_slowly(slow, key, message, length);
            if (memcmp(slow, fast, 16) != 0) {
                fprintf(stderr, "wrong: width %d, length %zu, cut %zu, seed %u\n", width, length, cut, seed);
                return 1;
            }
        }
        printf("width %d: %d messages have the right hash\n", width, LONGEST + 1);
    }
    return 0;
}
