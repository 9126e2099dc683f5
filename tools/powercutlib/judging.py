# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Records one run of a case, and judges the disks that its log can leave."""

import random
import signal
import tempfile

from .cases import CASES, Lost
from .mutations import MUTATIONS
from .stage import Stage

VERDICTS = ["old", "rolled back", "second run", "lost"]
# Of each interval between two flushes.
SUBSETS = 64


class Tally:
    """What became of the disks of one log or case."""

    def __init__(self):
        self.counts = dict.fromkeys(VERDICTS, 0)
        self.intervals = 0
        self.runs = 0
        self.logs = 0
        self.failures = []

    def add(self, other):
        for verdict, count in other.counts.items():
            self.counts[verdict] += count
        self.intervals += other.intervals
        self.runs += other.runs
        self.logs += other.logs
        self.failures += other.failures

    @property
    def disks(self):
        return sum(self.counts.values())


def judge_log(program, place, name, seed, mutation=None):
    """Judges all prefixes of one run of a case, and subsets of each interval.

    `mutation` is the index of a fault that is put into the log.
    """
    # A worker that is ended must not run the handlers of its parent.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    chance = random.Random(f"{name} {seed}")
    case = next(kind for kind in CASES if kind.name == name)()
    tally = Tally()
    with Stage(program, tempfile.mkdtemp(dir=place)) as stage:
        try:
            case.prepare(stage, chance)
            history = case.record(stage)
        except Lost as lost:
            tally.counts["lost"] += 1
            tally.failures.append(f"{name} --seed {seed}: {lost}")
            return tally
        if mutation is not None:
            history.log = MUTATIONS[mutation].change(history.log, stage)
        tally.logs = 1
        tally.intervals = len(history.intervals())
        seen = set()
        for cut in cuts(history, chance):
            if cut.key() in seen:
                continue
            seen.add(cut.key())
            try:
                verdict = case.judge(stage, cut, chance)
            except Lost as lost:
                verdict = "lost"
                tally.failures.append(f"{name} --seed {seed}: {cut}: {lost}")
            tally.counts[verdict] += 1
        tally.runs = stage.runs
    return tally


def cuts(history, chance):
    yield from history.prefixes()
    yield from history.subsets(SUBSETS, chance)
