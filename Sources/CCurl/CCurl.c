// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

#include "CCurl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

// curl.h defines macros with these names, which check the arguments.
#undef curl_easy_setopt
#undef curl_easy_getinfo
#undef curl_multi_setopt

#define FUNCTIONS(each)     \
    each(global_init)       \
    each(version_info)      \
    each(easy_init)         \
    each(easy_cleanup)      \
    each(easy_setopt)       \
    each(easy_getinfo)      \
    each(easy_strerror)     \
    each(slist_append)      \
    each(slist_free_all)    \
    each(multi_init)        \
    each(multi_cleanup)     \
    each(multi_setopt)      \
    each(multi_add_handle)  \
    each(multi_remove_handle) \
    each(multi_perform)     \
    each(multi_poll)        \
    each(multi_info_read)

#define POINTER(name) static __typeof__(&curl_##name) real_##name;
FUNCTIONS(POINTER)

static const char *failure;

static void load(void) {
    void *library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        // dlerror(3) keeps its text for this thread, and until its next call.
        failure = strdup(dlerror());
        return;
    }
#define FIND(name)                                                        \
    real_##name = (__typeof__(&curl_##name))dlsym(library, "curl_" #name); \
    if (!real_##name) failure = "libcurl.so.4: curl_" #name " is missing";
    FUNCTIONS(FIND)
}

const char *cc_load(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return failure;
}

CURLcode curl_global_init(long flags) { return real_global_init(flags); }
unsigned int cc_version(void) { return real_version_info(CURLVERSION_NOW)->version_num; }
CURL *curl_easy_init(void) { return real_easy_init(); }
void curl_easy_cleanup(CURL *handle) { real_easy_cleanup(handle); }
const char *curl_easy_strerror(CURLcode code) { return real_easy_strerror(code); }
struct curl_slist *curl_slist_append(struct curl_slist *list, const char *text) {
    return real_slist_append(list, text);
}
void curl_slist_free_all(struct curl_slist *list) { real_slist_free_all(list); }
CURLM *curl_multi_init(void) { return real_multi_init(); }
CURLMcode curl_multi_cleanup(CURLM *multi) { return real_multi_cleanup(multi); }
CURLMcode curl_multi_add_handle(CURLM *multi, CURL *handle) {
    return real_multi_add_handle(multi, handle);
}
CURLMcode curl_multi_remove_handle(CURLM *multi, CURL *handle) {
    return real_multi_remove_handle(multi, handle);
}
CURLMcode curl_multi_perform(CURLM *multi, int *running) {
    return real_multi_perform(multi, running);
}
CURLMcode curl_multi_poll(
    CURLM *multi, struct curl_waitfd *extra, unsigned int count, int milliseconds, int *ready) {
    return real_multi_poll(multi, extra, count, milliseconds, ready);
}
CURLMsg *curl_multi_info_read(CURLM *multi, int *left) {
    return real_multi_info_read(multi, left);
}

#define SETOPT(name, type)                                               \
    CURLcode cc_setopt_##name(CURL *handle, CURLoption option, type value) { \
        return real_easy_setopt(handle, option, value);                  \
    }
SETOPT(long, long)
SETOPT(off_t, curl_off_t)
SETOPT(string, const char *)
SETOPT(pointer, const void *)
SETOPT(write, curl_write_callback)
SETOPT(read, curl_read_callback)
SETOPT(seek, curl_seek_callback)
SETOPT(sockopt, curl_sockopt_callback)
SETOPT(opensocket, curl_opensocket_callback)
SETOPT(prereq, curl_prereq_callback)
SETOPT(closesocket, curl_closesocket_callback)

CURLMcode cc_multi_setopt_long(CURLM *handle, CURLMoption option, long value) {
    return real_multi_setopt(handle, option, value);
}

#define GETINFO(name, type)                                           \
    CURLcode cc_getinfo_##name(CURL *handle, CURLINFO info, type *value) { \
        return real_easy_getinfo(handle, info, value);                \
    }
GETINFO(long, long)
GETINFO(off_t, curl_off_t)
GETINFO(string, const char *)
