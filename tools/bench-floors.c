// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors
//
// What the hardware allows: reading alone, reading and hashing, or reading, moving and writing.
// tools/bench builds it with cc, and compares copying programs with it.
//
//   bench-floors read THREADS READ-SIZE PAGES FIRST SECOND
//       Reads both devices once with O_DIRECT and does nothing else: THREADS threads take chunks of
//       READ-SIZE bytes from one shared cursor and read each from both, into memory of PAGES (small
//       or huge) pages.
//   bench-floors poly1305 THREADS READ-SIZE PAGES FIRST SECOND
//   bench-floors gmac THREADS READ-SIZE PAGES FIRST SECOND
//       The same, and computes the Poly1305 of libcrypto or the GHASH of blkferry of each 64 KiB of
//       both, as blkferry does for its digests.
//   bench-floors move THREADS READ-SIZE PAGES SOURCE TARGET
//       Copies SOURCE over the loopback interface: THREADS connections take chunks of READ-SIZE
//       bytes from one shared cursor, read each with O_DIRECT and send it. Another process receives
//       them, writes them with O_DIRECT, and flushes at the end. No digests, and no protocol.
//
// These print the seconds.
//
//   bench-floors ascending THREADS READ-SIZE PAGES DEVICE SECONDS
//   bench-floors random THREADS READ-SIZE PAGES DEVICE SECONDS
//       THREADS threads read pieces of READ-SIZE bytes with O_DIRECT for SECONDS. Prints the reads
//       a second.

#define _GNU_SOURCE
#include <errno.h>
#include <error.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "CGhash.h"

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

enum { region_size = 64 << 10, threads_at_most = 256 };
static enum { reading, poly1305, gmac, moving, ascending, at_random } mode;
static int devices[2];
static off_t size;
static size_t read_size;
static int uses_huge_pages;
static EVP_MAC *mac;
static cg_key *ghash_key;
// Offset of the next free chunk, or number of the next free piece.
static _Atomic off_t cursor;
// The time at which `ascending` and `random` end.
static double deadline;

static char *pages(size_t length) {
    char *memory;
    size_t huge_page = 2 << 20, rounded = (length + huge_page - 1) & ~(huge_page - 1);
    int code = posix_memalign((void **)&memory, huge_page, rounded);
    if (code != 0) error(1, code, "posix_memalign");
    if (madvise(memory, rounded, uses_huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) != 0)
        error(1, errno, "madvise");
    return memory;
}

// The next chunk: its length, 0 at the end.
static size_t next_chunk(off_t *offset) {
    *offset = atomic_fetch_add(&cursor, (off_t)read_size);
    if (*offset >= size) return 0;
    return (size_t)(size - *offset) < read_size ? (size_t)(size - *offset) : read_size;
}

static void read_chunk(int device, char *memory, size_t length, off_t offset) {
    ssize_t count = pread(device, memory, length, offset);
    if (count != (ssize_t)length) error(1, count < 0 ? errno : 0, "pread: %zd", count);
}

static void hash(EVP_MAC_CTX *context, const char *bytes, size_t length) {
    static const unsigned char key[32] = {1};
    unsigned char digest[16];
    size_t digest_length;
    if (mode == gmac) {
        cg_state state = {0};
        cg_update(ghash_key, &state, bytes, length);
        cg_finish(ghash_key, &state, digest);
    } else if (EVP_MAC_init(context, key, sizeof key, NULL) != 1
               || EVP_MAC_update(context, (const unsigned char *)bytes, length) != 1
               || EVP_MAC_final(context, digest, &digest_length, sizeof digest) != 1)
        error(1, 0, "poly1305");
}

static void *compare(void *unused) {
    (void)unused;
    EVP_MAC_CTX *context = mode == poly1305 ? EVP_MAC_CTX_new(mac) : NULL;
    char *buffers = pages(2 * read_size);
    off_t offset;
    for (size_t length; (length = next_chunk(&offset)) > 0;) {
        for (int i = 0; i < 2; i++) {
            char *bytes = buffers + (size_t)i * read_size;
            read_chunk(devices[i], bytes, length, offset);
            for (size_t at = 0; mode != reading && at < length; at += region_size)
                hash(context, bytes + at, length - at < region_size ? length - at : region_size);
        }
    }
    EVP_MAC_CTX_free(context);
    return NULL;
}

static void *read_pieces(void *unused) {
    (void)unused;
    char *memory = pages(read_size);
    uint64_t count = (uint64_t)size / read_size;
    while (now() < deadline) {
        uint64_t piece = (uint64_t)atomic_fetch_add(&cursor, 1);
        // A large prime, so that each piece is read once before any is read again.
        if (mode == at_random) piece *= 2654435761;
        read_chunk(devices[0], memory, read_size, (off_t)(piece % count * read_size));
    }
    return NULL;
}

// What comes before each chunk; the end has the length 0.
struct header {
    off_t offset;
    size_t length;
};

static void transfer(int socket, void *memory, size_t length, int sends) {
    for (size_t done = 0; done < length;) {
        char *rest = (char *)memory + done;
        ssize_t count = sends ? send(socket, rest, length - done, MSG_NOSIGNAL)
                              : recv(socket, rest, length - done, 0);
        if (count <= 0) error(1, count < 0 ? errno : 0, "socket");
        done += (size_t)count;
    }
}

static struct sockaddr_in address;
static int listener;

static void *send_chunks(void *unused) {
    (void)unused;
    char *memory = pages(read_size);
    int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(connection, (struct sockaddr *)&address, sizeof address) != 0)
        error(1, errno, "connect");
    struct header header;
    do {
        header.length = next_chunk(&header.offset);
        if (header.length > 0) read_chunk(devices[0], memory, header.length, header.offset);
        transfer(connection, &header, sizeof header, 1);
        transfer(connection, memory, header.length, 1);
    } while (header.length > 0);
    close(connection);
    return NULL;
}

static void *receive_chunks(void *unused) {
    (void)unused;
    char *memory = pages(read_size);
    int connection = accept(listener, NULL, NULL);
    if (connection < 0) error(1, errno, "accept");
    for (;;) {
        struct header header;
        transfer(connection, &header, sizeof header, 0);
        if (header.length == 0) break;
        transfer(connection, memory, header.length, 0);
        ssize_t count = pwrite(devices[1], memory, header.length, header.offset);
        if (count != (ssize_t)header.length) error(1, count < 0 ? errno : 0, "pwrite: %zd", count);
    }
    close(connection);
    return NULL;
}

static void run_threads(int count, void *(*work)(void *)) {
    pthread_t threads[threads_at_most];
    for (int i = 0; i < count; i++) {
        int code = pthread_create(&threads[i], NULL, work, NULL);
        if (code != 0) error(1, code, "pthread_create");
    }
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

static void move(int connections) {
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, length) != 0
        || getsockname(listener, (struct sockaddr *)&address, &length) != 0
        || listen(listener, connections) != 0)
        error(1, errno, "listen");
    pid_t receiver = fork();
    if (receiver < 0) error(1, errno, "fork");
    if (receiver == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_threads(connections, receive_chunks);
        if (fdatasync(devices[1]) != 0) error(1, errno, "fdatasync");
        exit(0);
    }
    run_threads(connections, send_chunks);
    int status;
    if (waitpid(receiver, &status, 0) < 0) error(1, errno, "waitpid");
    if (status != 0) error(1, 0, "the receiver failed");
}

int main(int count, char **arguments) {
    static const char *const modes[] = {"read", "poly1305", "gmac", "move", "ascending", "random"};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int chosen = -1;
    for (int i = 0; count == 7 && i < 6; i++)
        if (strcmp(arguments[1], modes[i]) == 0) chosen = i;
    if (chosen < 0)
        error(64, 0, "usage: bench-floors read|poly1305|gmac|move "
                     "THREADS READ-SIZE PAGES FIRST SECOND | "
                     "ascending|random THREADS READ-SIZE PAGES DEVICE SECONDS");
    mode = chosen;
    int threads = atoi(arguments[2]);
    read_size = (size_t)atol(arguments[3]);
    if (threads < 1 || threads > threads_at_most || read_size == 0) error(64, 0, "bad number");
    uses_huge_pages = strcmp(arguments[4], "huge") == 0;
    double begin = now();
    if (mode == poly1305 && (mac = EVP_MAC_fetch(NULL, "POLY1305", NULL)) == NULL)
        error(1, 0, "EVP_MAC_fetch");
    if (mode == gmac) {
        if (cg_widest() == 0) error(1, 0, "gmac: this processor has no carry-less multiplication");
        ghash_key = cg_make_key((const uint8_t *)"any sixteen byte", cg_widest());
        if (ghash_key == NULL) error(1, 0, "gmac: no memory");
    }
    int is_rate = mode == ascending || mode == at_random;
    for (int i = 0; i < (is_rate ? 1 : 2); i++) {
        int access = mode == moving && i == 1 ? O_RDWR : O_RDONLY;
        devices[i] = open(arguments[5 + i], access | O_DIRECT | O_CLOEXEC);
        if (devices[i] < 0) error(1, errno, "%s", arguments[5 + i]);
    }
    size = lseek(devices[0], 0, SEEK_END);
    if (is_rate) deadline = begin + atof(arguments[6]);
    if (mode == moving) move(threads);
    else run_threads(threads, is_rate ? read_pieces : compare);
    double seconds = now() - begin;
    printf("%.6f\n", is_rate ? (double)cursor / seconds : seconds);
    return 0;
}
