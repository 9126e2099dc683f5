# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""The kernels that a virtual machine may boot: Debian's packages, unpacked, not installed."""

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .process import Failure, command, output

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".build/lab"


@dataclass(frozen=True)
class Kernel:
    """A kernel, and the directory of its modules: DIRECTORY/lib/modules/RELEASE."""

    image: Path
    modules: Path


def for_machines():
    """Debian's general kernel: the cloud kernel has no SATA driver."""
    depends = output("apt-cache", "depends", "linux-image-amd64")
    found = re.search(r"Depends: (linux-image-[0-9]\S*)", depends)
    if not found:
        raise Failure("Debian's linux-image-amd64 is not known here: apt-get update")
    modules = unpacked(found[1], "lib/modules")
    return Kernel(modules.parents[2] / f"boot/vmlinuz-{modules.name}", modules)


def for_user_mode():
    """User-mode Linux: a program, whose processes are processes of the host."""
    modules = unpacked("user-mode-linux", "usr/lib/uml/modules")
    return Kernel(modules.parents[2] / "usr/bin/linux.uml", modules)


def unpacked(package, modules):
    """Downloads a kernel's package if it is missing; returns its modules' directory."""
    return next((files(package, modules) / "lib/modules").iterdir())


def files(package, modules="lib/modules"):
    """Downloads a package if it is missing, and unpacks it; returns the directory.

    depmod(8) and modprobe(8) read lib/modules only, so the modules are put there.
    """
    directory = CACHE / package
    if not directory.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            command("apt-get", "download", "-q", package, cwd=work)
            tree = Path(work) / "unpacked"
            command("dpkg-deb", "-x", next(Path(work).glob("*.deb")), tree)
            if modules != "lib/modules":
                (tree / "lib").mkdir(exist_ok=True)
                os.rename(tree / modules, tree / "lib/modules")
            os.rename(tree, directory)
    return directory
