# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
#
# Functions of the scripts in tools/; sourced, never run. Changes to the top of the source tree.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
# mkfs, losetup and the like, which a user's PATH may lack.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# say TEXT...: a heading on standard output.
say() { printf '\n==> %s\n' "$*"; }

# fail TEXT...: ends the script with an error of one line.
fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# need_swift: ends the script unless there is a toolchain that is new enough.
need_swift() {
    local version major minor
    command -v swift >/dev/null \
        || fail "no Swift toolchain in PATH: blkferry needs Swift 6.1 or later"
    version=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9][0-9.]*\).*/\1/p' | head -n 1)
    IFS=. read -r major minor _ <<<"$version"
    if ((${major:-0} < 6 || (${major:-0} == 6 && ${minor:-0} < 1))); then
        fail "Swift ${version:-of an unknown version} is too old: blkferry needs 6.1 or later"
    fi
}

# The clang of the toolchain.
toolchain_clang() {
    local swift clang
    swift=$(realpath "$(command -v swift)")
    clang=${swift%/*}/clang
    [[ -x $clang ]] || clang=$(command -v clang) || fail 'the toolchain has no clang'
    echo "$clang"
}

# The compiler's own C++ library, as an archive.
static_libstdcxx() {
    local compiler path
    for compiler in gcc g++ clang++; do
        command -v "$compiler" >/dev/null || continue
        path=$("$compiler" -print-file-name=libstdc++.a)
        # Without a directory the compiler has not found it.
        if [[ $path == /* && -f $path ]]; then
            realpath "$path"
            return
        fi
    done
    return 1
}
