// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// libzstd, loaded when a session first compresses. Its header is not needed: the functions that are
// looked up belong to its stable interface, see zstd.h of version 1.3.0 and later.

#ifndef CZSTD_H
#define CZSTD_H

#include <stdbool.h>
#include <stddef.h>

/// dlopen(3) of libzstd.so.1: NULL on success, else the reason of the failure
const char *cz_load(void);

/// What one thread needs to compress and decompress; NULL without memory. `cz_load` comes first.
typedef struct cz_context cz_context;
cz_context *cz_new(void);
void cz_free(cz_context *context);

/// ZSTD_compressCCtx: the length of the frame; 0 if it does not fit, or without memory
size_t cz_compress(
    cz_context *context, void *to, size_t room, const void *from, size_t count, int level);

/// ZSTD_decompressDCtx: whether the frame decompresses to exactly `count` bytes
bool cz_decompress(
    cz_context *context, void *to, size_t count, const void *frame, size_t length);

/// ZSTD_getFrameContentSize: -1 unless the bytes are exactly one frame that states its size
long long cz_content_size(const void *frame, size_t length);

#endif
