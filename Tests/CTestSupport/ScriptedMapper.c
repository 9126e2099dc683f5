// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// A device mapper in place of the kernel's. It runs in forked processes as well, so it only makes system
// calls.

#define _GNU_SOURCE
#include "CTestSupport.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

// Opens the directory of an open file.
static int open_directory(int file) {
    char link[32], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return -1;
    path[length] = 0;
    char *slash = strrchr(path, '/');
    if (!slash) return -1;
    *slash = 0;
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static bool has(int directory, const char *name) { return faccessat(directory, name, F_OK, 0) == 0; }

// Reads a file without the newline at its end; returns whether there is one.
static bool get(int directory, const char *name, char *text, size_t size) {
    text[0] = 0;
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t length = read(fd, text, size - 1);
    close(fd);
    if (length < 0) length = 0;
    if (length > 0 && text[length - 1] == '\n') length--;
    text[length] = 0;
    return true;
}

static void put(int directory, const char *name, const char *text, int flags) {
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
    if (fd < 0) return;
    dprintf(fd, "%s\n", text);
    close(fd);
}

// Fills in the answer as retrieve_status of the kernel's drivers/md/dm-ioctl.c does, from lines as
// dmsetup(8) prints them.
static void answer(struct dm_ioctl *question, char *lines) {
    char *start = (char *)question + question->data_start;
    size_t room = question->data_size - question->data_start, place = 0;
    char *rest = lines;
    question->target_count = 0;
    for (char *line; (line = strsep(&rest, "\n")) && *line;) {
        struct dm_target_spec spec = {.sector_start = strtoull(line, &line, 10)};
        spec.length = strtoull(line, &line, 10);
        if (*line == ' ') line++;
        char *type = strsep(&line, " ");
        strncpy(spec.target_type, type, sizeof spec.target_type - 1);
        const char *parameters = line ? line : "";
        size_t next = (place + sizeof spec + strlen(parameters) + 1 + 7) & ~(size_t)7;
        if (next > room) {
            question->flags |= DM_BUFFER_FULL_FLAG;
            return;
        }
        spec.next = (uint32_t)next;
        memcpy(start + place, &spec, sizeof spec);
        strcpy(start + place + sizeof spec, parameters);
        place = next;
        question->target_count++;
    }
}

static int ask(int directory, struct dm_ioctl *question, char *lines, size_t size) {
    bool is_table = question->flags & DM_STATUS_TABLE_FLAG;
    if (has(directory, "no-more") && has(directory, "messages")) return EIO;
    bool is_known = has(directory, "asked")
        && get(directory, is_table ? "table-next" : "status-next", lines, size);
    if (!is_known) is_known = get(directory, is_table ? "table" : "status", lines, size);
    if (!is_known) {
        char held[32], mode[32];
        if (is_table || !get(directory, "held", held, sizeof held)) return ENXIO;
        get(directory, "mode", mode, sizeof mode);
        snprintf(
            lines, size,
            "0 409600 thin-pool 3 140/1024 512/3200 %s %s discard_passdown queue_if_no_space - 1024",
            held, mode);
    } else if (!is_table) {
        put(directory, "asked", question->name, O_TRUNC);
    }
    answer(question, lines);
    return 0;
}

static int receive(int directory, struct dm_ioctl *question) {
    const struct dm_target_msg *message = (void *)((char *)question + question->data_start);
    char process[16], text[32];
    snprintf(process, sizeof process, "%d", getpid());
    put(directory, "process", process, O_TRUNC);
    int descriptors = 0;
    for (int fd = 0; fd < 4096; fd++) descriptors += fcntl(fd, F_GETFD) >= 0;
    snprintf(text, sizeof text, "%d", descriptors);
    put(directory, "descriptors", text, O_TRUNC);
    put(directory, "name", question->name, O_TRUNC);
    put(directory, "messages", message->message, O_APPEND);
    while (has(directory, "slow-message")) usleep(5000);
    if (strcmp(message->message, "reserve_metadata_snap") == 0) {
        if (get(directory, "faster", text, sizeof text)) put(directory, "held", text, O_TRUNC);
        get(directory, "held", text, sizeof text);
        if (strcmp(text, "-") != 0) return EBUSY;
        put(directory, "held", "77", O_TRUNC);
    } else {
        if (has(directory, "stuck")) return EOPNOTSUPP;
        get(directory, "held", text, sizeof text);
        if (strcmp(text, "-") == 0) return EINVAL;
        put(directory, "held", "-", O_TRUNC);
    }
    return 0;
}

int cts_mapper_ioctl(int control, unsigned long request, void *memory) {
    int directory = open_directory(control);
    if (directory < 0) return -1;
    static const size_t size = 1 << 20;
    char *lines = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct dm_ioctl *question = memory;
    int error = EINVAL;
    if (question->version[0] == DM_VERSION_MAJOR && question->data_start >= sizeof *question)
        error = request == DM_TABLE_STATUS ? ask(directory, question, lines, size)
            : request == DM_TARGET_MSG     ? receive(directory, question)
                                           : ENOTTY;
    munmap(lines, size);
    close(directory);
    errno = error;
    return error == 0 ? 0 : -1;
}
