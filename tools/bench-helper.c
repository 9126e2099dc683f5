// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors
//
// Parts of tools/bench that Python cannot do; tools/bench builds it with cc.
//
//   bench-helper run COMMAND...
//       Runs a command and prints wall seconds, CPU seconds (user and system, of the command and
//       the processes that it waited for), peak resident KiB and exit status. A process of its own,
//       because a child's peak memory counts what its parent had when it was started.
//   bench-helper hold COMMAND...
//       Becomes a command that ends when its parent does: a server.
//   bench-helper relay PORT TARGET-PORT DELAY
//       Relays TCP connections on 127.0.0.1 and holds each byte back for DELAY milliseconds, in
//       both directions. At SIGTERM prints the bytes to the target, the bytes from it and the
//       number of connections. A connection's handshake, which a relay cannot hold back, is charged
//       to the first bytes to the target.

#define _GNU_SOURCE
#include <errno.h>
#include <error.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec / 1e6; }

static int run(char **command) {
    double begin = now();
    pid_t child = fork();
    if (child < 0) error(1, errno, "fork");
    if (child == 0) {
        // No command goes on writing to a device that tools/bench is about to release.
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        // The command's output goes to standard error, like this program's errors.
        dup2(STDERR_FILENO, STDOUT_FILENO);
        execvp(command[0], command);
        error(127, errno, "%s", command[0]);
    }
    int status;
    struct rusage usage;
    while (wait4(child, &status, 0, &usage) < 0) {
        if (errno != EINTR) error(1, errno, "wait4");
    }
    printf("%.6f %.6f %ld %d\n", now() - begin,
           seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss,
           WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    return 0;
}

// What was read and is not yet due. Memory is bounded: beyond it the sender waits, as it would for
// a full window.
enum { chunk_size = 64 << 10, chunks_per_queue = 4096, connections_at_most = 256 };

struct chunk {
    double due;
    size_t length, sent;
    char *bytes;
};

// One direction of a connection.
struct queue {
    int from, to, has_ended, has_told_end;
    double earliest;
    struct chunk chunks[chunks_per_queue];
    size_t first, count;
    uint64_t *total;
};

struct connection {
    struct queue up, down;
};

static volatile sig_atomic_t is_asked_to_stop;

static void stop(int number) {
    (void)number;
    is_asked_to_stop = 1;
}

static struct sockaddr_in loopback(const char *port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void at_once(int socket) {
    int yes = 1;
    if (setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) != 0)
        error(1, errno, "TCP_NODELAY");
    if (fcntl(socket, F_SETFL, O_NONBLOCK) != 0) error(1, errno, "O_NONBLOCK");
}

static void drop_end(struct queue *q) {
    q->has_ended = q->has_told_end = 1;
    while (q->count > 0) {
        free(q->chunks[q->first].bytes);
        q->first = (q->first + 1) % chunks_per_queue;
        q->count--;
    }
}

static void receive(struct queue *q, double delay) {
    struct chunk *c = &q->chunks[(q->first + q->count) % chunks_per_queue];
    char bytes[chunk_size];
    ssize_t length = read(q->from, bytes, sizeof bytes);
    if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
    double begin = now() > q->earliest ? now() : q->earliest;
    // The end travels like the bytes, as a chunk of no length.
    if (length <= 0) q->has_ended = 1, length = 0;
    *c = (struct chunk){.due = begin + delay, .length = (size_t)length};
    if ((c->bytes = malloc((size_t)length + 1)) == NULL) error(1, errno, "malloc");
    memcpy(c->bytes, bytes, (size_t)length);
    *q->total += (uint64_t)length;
    q->count++;
}

static void deliver(struct queue *q) {
    while (q->count > 0 && q->chunks[q->first].due <= now()) {
        struct chunk *c = &q->chunks[q->first];
        if (c->length == 0) {
            shutdown(q->to, SHUT_WR);
            q->has_told_end = 1;
        } else {
            ssize_t sent = send(q->to, c->bytes + c->sent, c->length - c->sent, MSG_NOSIGNAL);
            if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
            if (sent < 0) {
                // The sender gets the error of a closed socket.
                shutdown(q->from, SHUT_RD);
                drop_end(q);
                return;
            }
            c->sent += (size_t)sent;
            if (c->sent < c->length) continue;
        }
        free(c->bytes);
        q->first = (q->first + 1) % chunks_per_queue;
        q->count--;
    }
}

// The event to wait for, and the time until which to wait at most.
static short interest(const struct queue *q, int descriptor, double *until) {
    short events = 0;
    if (descriptor == q->from && !q->has_ended && q->count < chunks_per_queue) events |= POLLIN;
    if (descriptor == q->to && q->count > 0) {
        if (q->chunks[q->first].due <= now()) events |= POLLOUT;
        else if (q->chunks[q->first].due < *until) *until = q->chunks[q->first].due;
    }
    return events;
}

static struct connection *accept_one(int listener, struct sockaddr_in target, double delay,
                                     uint64_t totals[2]) {
    int near = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (near < 0) return NULL;
    int far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct connection *c = calloc(1, sizeof *c);
    if (far < 0 || c == NULL) error(1, errno, "connection");
    if (connect(far, (struct sockaddr *)&target, sizeof target) != 0) {
        close(near), close(far), free(c);
        return NULL;
    }
    at_once(near), at_once(far);
    c->up = (struct queue){.from = near, .to = far, .total = &totals[0]};
    c->up.earliest = now() + 2 * delay;
    c->down = (struct queue){.from = far, .to = near, .total = &totals[1]};
    return c;
}

static int relay(char **arguments) {
    signal(SIGTERM, stop);
    struct sockaddr_in here = loopback(arguments[0]), target = loopback(arguments[1]);
    double delay = atof(arguments[2]) / 1000;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) != 0 || listen(listener, 128) != 0)
        error(1, errno, "port %s", arguments[0]);
    static struct connection *open_ones[connections_at_most];
    uint64_t totals[2] = {0, 0};
    int count = 0, accepted = 0;
    while (!is_asked_to_stop) {
        struct pollfd polled[2 * connections_at_most + 1];
        // Short enough for a signal that comes just before the wait.
        double until = now() + 0.1;
        for (int i = 0; i < count; i++) {
            struct connection *c = open_ones[i];
            int ends[2] = {c->up.from, c->up.to};
            for (int side = 0; side < 2; side++) {
                short events = (short)(interest(&c->up, ends[side], &until)
                                       | interest(&c->down, ends[side], &until));
                // Negative: not polled, as an end that has hung up would report it all the time.
                polled[2 * i + side] = (struct pollfd){events ? ends[side] : -1, events, 0};
            }
        }
        polled[2 * count] = (struct pollfd){count < connections_at_most ? listener : -1, POLLIN, 0};
        double wait = until - now();  // at most 0.1
        struct timespec t = {0, wait > 0 ? (long)(wait * 1e9) : 0};
        if (ppoll(polled, (nfds_t)(2 * count + 1), &t, NULL) < 0 && errno != EINTR)
            error(1, errno, "ppoll");
        int had = count;
        if (polled[2 * had].revents) {
            struct connection *c = accept_one(listener, target, delay, totals);
            if (c != NULL) open_ones[count++] = c, accepted++;
        }
        for (int i = 0; i < had; i++) {
            struct queue *both[2] = {&open_ones[i]->up, &open_ones[i]->down};
            for (int side = 0; side < 2; side++) {
                struct queue *q = both[side];
                if (polled[2 * i + side].revents && !q->has_ended && q->count < chunks_per_queue)
                    receive(q, delay);
            }
            for (int side = 0; side < 2; side++) deliver(both[side]);
        }
        for (int i = count - 1; i >= 0; i--) {
            struct connection *c = open_ones[i];
            if (!c->up.has_told_end || !c->down.has_told_end) continue;
            close(c->up.from), close(c->up.to), free(c);
            open_ones[i] = open_ones[--count];
        }
    }
    printf("%llu %llu %d\n", (unsigned long long)totals[0], (unsigned long long)totals[1],
           accepted);
    return 0;
}

int main(int count, char **arguments) {
    // Ends this process when tools/bench is killed.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const char *mode = count > 1 ? arguments[1] : "";
    if (count >= 3 && strcmp(mode, "run") == 0) return run(arguments + 2);
    if (count >= 3 && strcmp(mode, "hold") == 0) {
        execvp(arguments[2], arguments + 2);
        error(127, errno, "%s", arguments[2]);
    }
    if (count == 5 && strcmp(mode, "relay") == 0) return relay(arguments + 2);
    error(64, 0, "usage: bench-helper run|hold COMMAND... | relay PORT TARGET-PORT DELAY");
}
