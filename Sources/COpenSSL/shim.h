// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
