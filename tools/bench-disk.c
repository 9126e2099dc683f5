// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors
//
// A model of a disk, for tools/bench disks, which builds it with cc. It mounts one file by FUSE,
// and answers each request when the disk that it models would.
//
//   bench-disk FILE MOUNT-POINT REQUESTS BANDWIDTH LATENCY SEEKS LOOK-AHEAD WRITE-CACHE
//       Shows FILE at the regular file MOUNT-POINT, without its last page, and ends when this is
//       unmounted. REQUESTS a second at most, BANDWIDTH in bytes a second, LATENCY in seconds.
//       SEEKS a second of a disk with a moving head; 0 for one without. LOOK-AHEAD and WRITE-CACHE
//       in bytes, for a moving head. The last page of FILE is `struct counts`.
//
// Without a head a request takes max(1 / REQUESTS, length / BANDWIDTH) of the disk, one after
// another, and at least LATENCY until its answer, during which others are served.
//
// The head of a hard disk serves one request at a time: of those that wait the next one upwards, as
// the elevators of Linux and of the disk do. To go on where it is costs nothing, to go back costs a
// seek. To go forward costs at most a seek, and no more than to read what lies between. After a
// read the head reads on while nothing else waits, up to LOOK-AHEAD. Writes are answered when they
// are in the cache, which has room for at least one. The cache goes to the disk, upwards, if the
// head is there anyway, if it was idle for some time, if a flush waits, or, down to the half of it,
// if it is full.

#define _GNU_SOURCE
#include <errno.h>
#include <error.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { longest_transfer = 1 << 20, page = 4096, most_requests = 1024, most_dirty = 64 << 10 };

// Between the disk's cache and the host, in bytes a second (SATA).
static const double interface = 550e6;
// Seconds for which the disk waits for further reads before it moves its head to write from its cache.
static const double patience = 0.02;

struct request {
    uint64_t unique;
    uint32_t opcode;
    off_t offset;
    size_t length;
    // Seconds; no time is due yet if it is negative.
    double arrival, due;
};

struct write {
    off_t offset;
    size_t length;
    double arrival;
};

struct counts {
    uint64_t reads, writes, seeks;
};

static double request_time, byte_time, latency, seek_time;
static size_t look_ahead, write_cache;

static int fuse;
static char *content;
static off_t size;
static struct counts *counts;

static struct request requests[most_requests];
static size_t request_count;
static struct write dirty[most_dirty];
static size_t dirty_count, dirty_bytes;

// The time until which the disk is busy, and where its head is then.
static double busy;
static off_t head;
static int reads_on, is_draining;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double later(double one, double other) { return one > other ? one : other; }

static void answer(uint64_t unique, int code, const void *bytes, size_t length) {
    struct fuse_out_header header = {
        .len = (uint32_t)(sizeof header + length), .error = -code, .unique = unique};
    struct iovec parts[2] = {{&header, sizeof header}, {(void *)bytes, length}};
    // ENOENT: the request was interrupted.
    if (writev(fuse, parts, length > 0 ? 2 : 1) < 0 && errno != ENOENT && errno != ENODEV)
        error(1, errno, "/dev/fuse: write");
}

static void finish(const struct request *r) {
    struct fuse_write_out written = {.size = (uint32_t)r->length};
    switch (r->opcode) {
        case FUSE_READ: answer(r->unique, 0, content + r->offset, r->length); break;
        case FUSE_WRITE: answer(r->unique, 0, &written, sizeof written); break;
        default: answer(r->unique, 0, NULL, 0);
    }
}

static double transfer_time(size_t length) {
    return later(request_time, (double)length * byte_time);
}

// Moves the head to a transfer that starts then, and over it.
static void move(off_t offset, size_t length, double start) {
    double way = offset < head ? seek_time : (double)(offset - head) * byte_time;
    if (way >= seek_time) {
        way = seek_time;
        counts->seeks++;
    }
    busy = start + way + transfer_time(length);
    head = offset + (off_t)length;
}

// Whether the first is served before the other, seen from the head.
static int is_before(off_t offset, off_t other) {
    return (offset >= head) == (other >= head) ? offset < other : offset >= head;
}

static struct request *next_read(void) {
    struct request *found = NULL;
    for (struct request *r = requests; r < requests + request_count; r++)
        if (r->opcode == FUSE_READ && r->due < 0
            && (!found || is_before(r->offset, found->offset)))
            found = r;
    return found;
}

static struct write *next_write(void) {
    struct write *found = NULL;
    for (struct write *w = dirty; w < dirty + dirty_count; w++)
        if (!found || is_before(w->offset, found->offset)) found = w;
    return found;
}

static void serve_read(struct request *r) {
    double start = later(busy, r->arrival);
    if (reads_on && r->offset == head)
        start = later(busy, r->arrival - (double)look_ahead * byte_time);
    move(r->offset, r->length, start);
    reads_on = 1;
    r->due = later(busy, r->arrival + (double)r->length / interface) + latency;
}

// Takes writes into the cache as long as there is room; notes since when something waits for it.
static double fill_cache(void) {
    double waits_since = -1;
    for (struct request *r = requests; r < requests + request_count; r++) {
        if (r->due >= 0 || r->opcode == FUSE_READ) continue;
        if (r->opcode == FUSE_FSYNC && dirty_count == 0) {
            r->due = later(busy, r->arrival) + latency;
        } else if (r->opcode == FUSE_WRITE && dirty_count < most_dirty
                   && (dirty_bytes + r->length <= write_cache || dirty_count == 0)) {
            double start = later(r->arrival, dirty_count == 0 || !is_draining ? 0 : busy);
            dirty[dirty_count++] = (struct write){r->offset, r->length, r->arrival};
            dirty_bytes += r->length;
            r->due = start + (double)r->length / interface + latency;
        } else if (waits_since < 0 || r->arrival < waits_since) {
            waits_since = r->arrival;
        }
    }
    return waits_since;
}

// Lets the head do what it does until a time; returns when it has to be asked again.
static double drive_head(double time) {
    for (;;) {
        double waits_since = fill_cache();
        if (waits_since >= 0) is_draining = 1;
        else if (dirty_bytes <= write_cache / 2) is_draining = 0;
        if (busy > time) return busy;
        struct request *r = next_read();
        struct write *w = next_write();
        if (r && !(w && is_draining)) {
            serve_read(r);
            continue;
        }
        if (!w) return time + 1;
        double start = later(busy, w->arrival);
        if (is_draining) start = later(start, waits_since);
        else if (w->offset != head) start += patience;
        if (start > time) return start;
        move(w->offset, w->length, start);
        reads_on = 0;
        dirty_bytes -= w->length;
        *w = dirty[--dirty_count];
    }
}

static void arrive(const struct request *new) {
    if (request_count == most_requests) error(1, 0, "too many requests");
    struct request *r = &requests[request_count++];
    *r = *new;
    r->arrival = now();
    r->due = -1;
    if (r->opcode == FUSE_READ) counts->reads++;
    if (r->opcode == FUSE_WRITE) counts->writes++;
    if (seek_time > 0) return;
    busy = later(busy, r->arrival);
    if (r->opcode != FUSE_FSYNC) busy += transfer_time(r->length);
    r->due = later(busy, r->arrival + latency);
}

static int is_inside(uint64_t offset, uint64_t length) {
    return offset <= (uint64_t)size && length <= (uint64_t)size - offset;
}

static void receive(const char *bytes) {
    const struct fuse_in_header *header = (const void *)bytes;
    const void *body = header + 1;
    struct request r = {.unique = header->unique, .opcode = header->opcode};
    switch (header->opcode) {
        case FUSE_INIT: {
            struct fuse_init_out out = {
                .major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION,
                .flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO | FUSE_MAX_PAGES,
                .max_background = 256, .congestion_threshold = 256, .time_gran = 1,
                .max_write = longest_transfer, .max_pages = longest_transfer / page};
            return answer(r.unique, 0, &out, sizeof out);
        }
        case FUSE_GETATTR: {
            struct fuse_attr_out out = {
                .attr_valid = 1 << 20,
                .attr = {.ino = FUSE_ROOT_ID, .size = (uint64_t)size, .nlink = 1,
                         .blocks = (uint64_t)size / 512, .mode = S_IFREG | 0600, .blksize = page}};
            return answer(r.unique, 0, &out, sizeof out);
        }
        case FUSE_OPEN: {
            struct fuse_open_out out = {
                .open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES};
            return answer(r.unique, 0, &out, sizeof out);
        }
        case FUSE_READ: {
            const struct fuse_read_in *in = body;
            if (!is_inside(in->offset, in->size)) return answer(r.unique, EINVAL, NULL, 0);
            r.offset = (off_t)in->offset, r.length = in->size;
            return arrive(&r);
        }
        case FUSE_WRITE: {
            const struct fuse_write_in *in = body;
            if (!is_inside(in->offset, in->size)) return answer(r.unique, EINVAL, NULL, 0);
            r.offset = (off_t)in->offset, r.length = in->size;
            memcpy(content + r.offset, in + 1, r.length);
            return arrive(&r);
        }
        case FUSE_FSYNC: return arrive(&r);
        case FUSE_RELEASE: return answer(r.unique, 0, NULL, 0);
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET: return;
        default: return answer(r.unique, ENOSYS, NULL, 0);
    }
}

// Reads all requests that are there; ends the program when the file is unmounted.
static void receive_all(void) {
    static _Alignas(8) char bytes[longest_transfer + page];
    for (;;) {
        ssize_t length = read(fuse, bytes, sizeof bytes);
        if (length >= 0) {
            receive(bytes);
        } else if (errno == ENODEV) {
            exit(0);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR && errno != ENOENT) {
            error(1, errno, "/dev/fuse: read");
        }
    }
}

static void serve(void) {
    for (;;) {
        double time = now(), next = seek_time > 0 ? drive_head(time) : time + 1;
        for (size_t i = 0; i < request_count;) {
            struct request r = requests[i];
            if (r.due >= 0 && r.due <= time) {
                requests[i] = requests[--request_count];
                finish(&r);
                continue;
            }
            if (r.due >= 0 && r.due < next) next = r.due;
            i++;
        }
        double wait = later(next - now(), 0);
        struct timespec t = {(time_t)wait, (long)((wait - (double)(time_t)wait) * 1e9)};
        struct pollfd polled = {fuse, POLLIN, 0};
        if (ppoll(&polled, 1, &t, NULL) < 0 && errno != EINTR) error(1, errno, "ppoll");
        if (polled.revents) receive_all();
    }
}

int main(int count, char **arguments) {
    // Ends this process when tools/bench is killed.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    // Answers come on time, and a disk does not wait for a processor.
    prctl(PR_SET_TIMERSLACK, 1);
    sched_setscheduler(0, SCHED_RR, &(struct sched_param){.sched_priority = 1});
    if (count != 9)
        error(64, 0, "usage: bench-disk FILE MOUNT-POINT REQUESTS BANDWIDTH LATENCY SEEKS "
                     "LOOK-AHEAD WRITE-CACHE");
    request_time = 1 / atof(arguments[3]);
    byte_time = 1 / atof(arguments[4]);
    latency = atof(arguments[5]);
    seek_time = atof(arguments[6]) > 0 ? 1 / atof(arguments[6]) : 0;
    look_ahead = (size_t)atol(arguments[7]);
    write_cache = (size_t)atol(arguments[8]);

    int file = open(arguments[1], O_RDWR | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) error(1, errno, "%s", arguments[1]);
    size = status.st_size - page;
    if (size <= 0 || size % page != 0) error(1, 0, "%s: no whole pages", arguments[1]);
    content = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (content == MAP_FAILED) error(1, errno, "%s: mmap", arguments[1]);
    counts = (void *)(content + size);

    fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fuse < 0) error(1, errno, "/dev/fuse");
    char options[100];
    snprintf(options, sizeof options, "fd=%d,rootmode=100600,user_id=0,group_id=0", fuse);
    if (mount("bench-disk", arguments[2], "fuse", MS_NOSUID | MS_NODEV, options) != 0)
        error(1, errno, "%s: mount", arguments[2]);
    puts("ready");
    fflush(stdout);
    serve();
}
