# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Runs programs for their effect or their output."""

import os
import shutil
import subprocess
from pathlib import Path


class Failure(Exception):
    """An error that ends the lab with one line."""


def program(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise Failure(f"{name}: not found on this machine")
    return Path(path).resolve()


def command(*words, **options):
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        raise Failure(f"{words[0]}: {(done.stderr.strip().splitlines() or [''])[-1]}")


def output(*words, quiet=False):
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True)
    if done.returncode != 0 and not quiet:
        raise Failure(f"{words[0]}: {done.stderr.strip()}")
    return done.stdout
