// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

#include "CZstd.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

// Every function, as zstd.h declares it. ZSTD_CCtx and ZSTD_DCtx are opaque there, too.
#define FUNCTIONS(each)                                                                        \
    each(void *, createCCtx, (void))                                                           \
    each(size_t, freeCCtx, (void *))                                                           \
    each(void *, createDCtx, (void))                                                           \
    each(size_t, freeDCtx, (void *))                                                           \
    each(size_t, compressCCtx, (void *, void *, size_t, const void *, size_t, int))            \
    each(size_t, decompressDCtx, (void *, void *, size_t, const void *, size_t))               \
    each(unsigned long long, getFrameContentSize, (const void *, size_t))                      \
    each(size_t, findFrameCompressedSize, (const void *, size_t))                              \
    each(unsigned, isError, (size_t))

#define POINTER(result, name, arguments) static result(*zstd_##name) arguments;
FUNCTIONS(POINTER)

struct cz_context {
    void *compressor;
    void *decompressor;
};

static const char *failure;

static void load(void) {
    void *library = dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        // dlerror(3) keeps its text for this thread, and until its next call.
        failure = strdup(dlerror());
        return;
    }
#define FIND(result, name, arguments)                                        \
    zstd_##name = (result(*) arguments)dlsym(library, "ZSTD_" #name);        \
    if (!zstd_##name) failure = "libzstd.so.1: ZSTD_" #name " is missing";
    FUNCTIONS(FIND)
}

const char *cz_load(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return failure;
}

cz_context *cz_new(void) { return calloc(1, sizeof(cz_context)); }

void cz_free(cz_context *context) {
    if (context->compressor) zstd_freeCCtx(context->compressor);
    if (context->decompressor) zstd_freeDCtx(context->decompressor);
    free(context);
}

size_t cz_compress(
    cz_context *context, void *to, size_t room, const void *from, size_t count, int level) {
    if (!context->compressor) context->compressor = zstd_createCCtx();
    if (!context->compressor) return 0;
    size_t length = zstd_compressCCtx(context->compressor, to, room, from, count, level);
    return zstd_isError(length) ? 0 : length;
}

bool cz_decompress(
    cz_context *context, void *to, size_t count, const void *frame, size_t length) {
    if (!context->decompressor) context->decompressor = zstd_createDCtx();
    if (!context->decompressor) return false;
    size_t done = zstd_decompressDCtx(context->decompressor, to, count, frame, length);
    return !zstd_isError(done) && done == count;
}

long long cz_content_size(const void *frame, size_t length) {
    // libzstd may also know skippable frames, and those from before RFC 8878 (ZSTD_LEGACY_SUPPORT).
    static const unsigned char magic[] = {0x28, 0xB5, 0x2F, 0xFD};
    if (length < sizeof magic || memcmp(frame, magic, sizeof magic) != 0) return -1;
    // Several frames have no size of their own.
    size_t first = zstd_findFrameCompressedSize(frame, length);
    if (zstd_isError(first) || first != length) return -1;
    // The two greatest values are an unknown size and an error.
    unsigned long long size = zstd_getFrameContentSize(frame, length);
    return size > LLONG_MAX ? -1 : (long long)size;
}
