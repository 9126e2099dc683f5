// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

/// Whether the thread sanitizer watches this process, which is then several times slower.
package let isSanitized = dlsym(nil, "__tsan_init") != nil

/// Seeds from 1 on, one for each case; the thread sanitizer gets an eighth of the cases.
package func seeds(_ count: UInt64) -> ClosedRange<UInt64> { 1...(isSanitized ? count / 8 : count) }
