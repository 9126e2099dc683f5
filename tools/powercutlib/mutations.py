# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Faults that are put into a log, so that it is known that the judge finds them."""

from .fuse import ROOT
from .stage import IMAGE, JOURNAL, STATE, TARGET


class Mutation:
    def __init__(self, title, case, change):
        self.title, self.case, self._change = title, case, change

    def change(self, log, stage):
        return self._change(log, stage.files.disk.names)


def without_flushes(directory, name=None):
    """Leaves out the flushes of a file, or of all that the names of a directory led to."""
    def change(log, names):
        numbers = {number for known, number in names[directory].items() if name in (None, known)}
        numbers |= {entry[3] for entry in log
                    if entry[0] == "name" and entry[1] == directory and entry[3]}
        return [entry for entry in log if entry[0] != "flush" or entry[1] not in numbers]
    return change


def without_name_flushes(directory):
    return lambda log, names: [entry for entry in log if entry != ("flush names", directory)]


def journal_late(log, names):
    """Moves each write of the journal, and its flush, behind the next write of the target."""
    target = names[TARGET][IMAGE]
    result, held = [], []
    for entry in log:
        if entry[1] != target and entry[0] in ("write", "flush"):
            held.append(entry)
        else:
            result.append(entry)
            if entry[0] in ("write", "zero"):
                result += held
                held = []
    return result + held


def zero_early(log, names):
    """Cuts the target off before anything else."""
    return [("size", names[TARGET][IMAGE], ROOT * 4096), *log]


MUTATIONS = [
    Mutation("the flushes of the target are lost", "sync", without_flushes(TARGET, IMAGE)),
    Mutation("the flushes of a block device are lost", "sync-device",
             without_flushes(TARGET, IMAGE)),
    Mutation("the flushes of a server's target are lost", "push", without_flushes(TARGET, IMAGE)),
    Mutation("the flushes of the journal are lost", "undo", without_flushes(JOURNAL)),
    Mutation("the name of the journal is not flushed", "undo", without_name_flushes(JOURNAL)),
    Mutation("the target is written before the journal", "undo-device", journal_late),
    Mutation("the target is cut off before the journal is there", "undo-shrink", zero_early),
    Mutation("a rollback notes its end before the target is flushed", "rollback-image",
             without_flushes(TARGET, IMAGE)),
    Mutation("the state file is renamed before it is flushed", "named", without_flushes(STATE)),
]
