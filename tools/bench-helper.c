// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors
//
// What tools/bench cannot do in Python; built by it with cc.
//
//   bench-helper floor THREADS READ-SIZE PAGES FIRST SECOND
//       Reads both devices once with O_DIRECT and does nothing else: THREADS threads take chunks of
//       READ-SIZE bytes from one shared cursor and read each from both, into memory of PAGES (small
//       or huge) pages. Prints the seconds.
//   bench-helper run COMMAND...
//       Runs a command and prints wall seconds, peak resident KiB and exit status. A process of its
//       own, because a child's peak memory counts what its parent had when it was started.

#define _GNU_SOURCE
#include <errno.h>
#include <error.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int devices[2];
static off_t size;
static size_t read_size;
static int uses_huge_pages;
// Offset of the next chunk that nobody has taken.
static _Atomic off_t cursor;

static void *read_chunks(void *unused) {
    (void)unused;
    char *buffers[2];
    size_t huge_page = 2 << 20, length_of_both = (2 * read_size + huge_page - 1) & ~(huge_page - 1);
    int code = posix_memalign((void **)&buffers[0], huge_page, length_of_both);
    if (code != 0) error(1, code, "posix_memalign");
    if (madvise(buffers[0], length_of_both, uses_huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) != 0)
        error(1, errno, "madvise");
    buffers[1] = buffers[0] + read_size;
    for (;;) {
        off_t offset = atomic_fetch_add(&cursor, (off_t)read_size);
        if (offset >= size) return NULL;
        size_t length = (size_t)(size - offset) < read_size ? (size_t)(size - offset) : read_size;
        for (int i = 0; i < 2; i++) {
            ssize_t count = pread(devices[i], buffers[i], length, offset);
            if (count != (ssize_t)length) error(1, count < 0 ? errno : 0, "pread: %zd", count);
        }
    }
}

static int measure_floor(char **arguments) {
    int count = atoi(arguments[0]);
    read_size = (size_t)atol(arguments[1]);
    pthread_t threads[256];
    if (count < 1 || count > 256 || read_size == 0) error(64, 0, "floor: bad number");
    uses_huge_pages = strcmp(arguments[2], "huge") == 0;
    double begin = now();
    for (int i = 0; i < 2; i++) {
        devices[i] = open(arguments[3 + i], O_RDONLY | O_DIRECT | O_CLOEXEC);
        if (devices[i] < 0) error(1, errno, "%s", arguments[3 + i]);
    }
    size = lseek(devices[0], 0, SEEK_END);
    for (int i = 0; i < count; i++) {
        int code = pthread_create(&threads[i], NULL, read_chunks, NULL);
        if (code != 0) error(1, code, "pthread_create");
    }
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    printf("%.6f\n", now() - begin);
    return 0;
}

static int run(char **command) {
    // An interrupt ends the command; tools/bench then ends this.
    signal(SIGINT, SIG_IGN);
    double begin = now();
    pid_t child = fork();
    if (child < 0) error(1, errno, "fork");
    if (child == 0) {
        signal(SIGINT, SIG_DFL);
        // No command goes on writing to a device that tools/bench is about to release.
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        // The command's own words go where this program's errors go.
        dup2(STDERR_FILENO, STDOUT_FILENO);
        execvp(command[0], command);
        error(127, errno, "%s", command[0]);
    }
    int status;
    struct rusage usage;
    while (wait4(child, &status, 0, &usage) < 0) {
        if (errno != EINTR) error(1, errno, "wait4");
    }
    printf("%.6f %ld %d\n", now() - begin, usage.ru_maxrss,
           WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    return 0;
}

int main(int count, char **arguments) {
    if (count == 7 && strcmp(arguments[1], "floor") == 0) return measure_floor(arguments + 2);
    if (count >= 3 && strcmp(arguments[1], "run") == 0) return run(arguments + 2);
    error(64, 0, "usage: bench-helper floor THREADS READ-SIZE PAGES FIRST SECOND | run COMMAND...");
}
