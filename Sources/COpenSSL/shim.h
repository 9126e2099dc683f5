// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

/// Begins a GMAC under AES-256 and an IV of twelve zero bytes: EVP_MAC_init(3).
static inline int co_gmac_init(EVP_MAC_CTX *context, const unsigned char *key) {
    unsigned char iv[12] = {0};
    char cipher[] = "AES-256-GCM";
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_CIPHER, cipher, 0),
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_IV, iv, sizeof iv),
        OSSL_PARAM_construct_end(),
    };
    return EVP_MAC_init(context, key, 32, parameters);
}
