// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors
//
// Preloaded into a run under the thread sanitizer: reports the locks of Synchronization.Mutex to it.
//
// The mutex's fast paths are compiled into our code, where the sanitizer sees their atomics. A
// contended mutex is locked and unlocked by libswiftSynchronization, which is not instrumented: the
// sanitizer would report every access after such a lock as a race. These two functions replace the
// library's, call them, and report the lock and the unlock. Sources: stdlib/public/Synchronization/Mutex/
// LinuxImpl.swift in swiftlang/swift, sanitizer/tsan_interface.h.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

#define LOCK_SLOW "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define UNLOCK_SLOW "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"
#define SWIFT __attribute__((swiftcall))
#define SELF __attribute__((swift_context)) void *self

// Absent in the processes that are not instrumented, such as `swift test` itself.
__attribute__((weak)) void __tsan_acquire(void *);
__attribute__((weak)) void __tsan_release(void *);

SWIFT void lock_slow(uint32_t thread, SELF) __asm__(LOCK_SLOW);
SWIFT void unlock_slow(SELF) __asm__(UNLOCK_SLOW);

static void *original(const char *name) {
    void *function = dlsym(RTLD_NEXT, name);
    if (function == NULL) abort();
    return function;
}

SWIFT void lock_slow(uint32_t thread, SELF) {
    ((SWIFT void (*)(uint32_t, SELF))original(LOCK_SLOW))(thread, self);
    if (__tsan_acquire != NULL) __tsan_acquire(self);
}

SWIFT void unlock_slow(SELF) {
    if (__tsan_release != NULL) __tsan_release(self);
    ((SWIFT void (*)(SELF))original(UNLOCK_SLOW))(self);
}
