// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// libcurl, loaded when the network is first used. It depends on some thirty libraries, which take
// longer to load than a local run needs to begin. A rescue system may lack it.
//
// Its functions keep their names. The variadic ones, which Swift cannot call, have typed forms.

#ifndef CCURL_H
#define CCURL_H

#include <curl/curl.h>

/// dlopen(3) of libcurl.so.4: NULL on success, else the reason of the failure
const char *cc_load(void);

/// curl_version_info(3): of the library, 0x075801 for 7.88.1
unsigned int cc_version(void);

CURLcode cc_setopt_long(CURL *handle, CURLoption option, long value);
CURLcode cc_setopt_off_t(CURL *handle, CURLoption option, curl_off_t value);
CURLcode cc_setopt_string(CURL *handle, CURLoption option, const char *value);
/// For lists, the memory of a body, and the last argument of a callback.
CURLcode cc_setopt_pointer(CURL *handle, CURLoption option, const void *value);
/// CURLOPT_WRITEFUNCTION and CURLOPT_HEADERFUNCTION
CURLcode cc_setopt_write(CURL *handle, CURLoption option, curl_write_callback value);
CURLcode cc_setopt_read(CURL *handle, CURLoption option, curl_read_callback value);
CURLcode cc_setopt_seek(CURL *handle, CURLoption option, curl_seek_callback value);
CURLcode cc_setopt_sockopt(CURL *handle, CURLoption option, curl_sockopt_callback value);
CURLcode cc_setopt_opensocket(CURL *handle, CURLoption option, curl_opensocket_callback value);
CURLcode cc_setopt_prereq(CURL *handle, CURLoption option, curl_prereq_callback value);
CURLcode cc_setopt_closesocket(CURL *handle, CURLoption option, curl_closesocket_callback value);
CURLMcode cc_multi_setopt_long(CURLM *handle, CURLMoption option, long value);
CURLcode cc_getinfo_long(CURL *handle, CURLINFO info, long *value);
CURLcode cc_getinfo_off_t(CURL *handle, CURLINFO info, curl_off_t *value);
CURLcode cc_getinfo_string(CURL *handle, CURLINFO info, const char **value);

#endif
