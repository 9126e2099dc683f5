# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""The runs that are cut off, and what must hold of every disk that is left."""

import json

from .history import History
from .stage import IMAGE, JOURNAL, STATE, TARGET

UNDO, SECOND = "undo", "second"
KIB = 1 << 10
BLOCK = 4096


class Lost(Exception):
    """A disk of which neither the old nor the new content can be made, or a claim that is wrong."""


class Pair:
    """The content of a source, and of a target before a run."""

    def __init__(self, random, size, old_size=None, changes=12, zeros=True):
        self.new = bytearray(random.randbytes(size))
        old = bytearray(self.new[:old_size if old_size is not None else size])
        old += random.randbytes((old_size or 0) - len(old)) if old_size else b""
        for _ in range(random.randint(changes // 2, changes)):
            start = random.randrange(0, size // BLOCK) * BLOCK
            end = min(size, start + random.choice([1, 1, 2, 5, 20]) * BLOCK)
            kind = random.randrange(4) if zeros else 3
            if kind == 0:
                self.new[start:end] = bytes(end - start)
            elif kind == 1 and start < len(old):
                end = min(end, len(old))
                old[start:end] = bytes(end - start)
            elif start < len(old):
                end = min(end, len(old))
                old[start:end] = random.randbytes(end - start)
        self.old = bytes(old)
        self.new = bytes(self.new)


class Case:
    """A sync without a way back: a second run makes the target new."""

    name = "sync"
    title = "a sync to an image"
    options = ()
    is_loop = False
    undo = False
    changes = 12
    # What the command of the judged run is given besides.
    again = ("--overwrite",)

    def pair(self, random):
        # Some ragged tails, and some of no whole sector.
        tail = 0 if self.is_loop else random.choice([0, 0, 512, 4096 + 100])
        # One window of the engine, or two.
        size = random.choice([256, 512, 768, 1280]) * KIB
        return Pair(random, size + tail, changes=self.changes)

    def prepare(self, stage, random):
        """Lays out the devices, durably."""
        self.random = random
        pair = self.pair(random)
        self.new = pair.new
        self.source = stage.beside / "source.img"
        self.source.write_bytes(pair.new)
        disk = stage.disk()
        disk.names = {directory: {} for directory in disk.names}
        disk.files = {}
        self.put(disk, TARGET, IMAGE, pair.old)
        self.old = pair.old
        stage.load(disk)
        if self.is_loop:
            stage.use_loop()

    @staticmethod
    def put(disk, directory, name, content):
        if content is None:
            return
        number = 2 + max([1, *disk.files])
        disk.names[directory][name] = number
        disk.files[number] = bytearray(content)

    def command(self, stage):
        command = ["sync", *self.options, *self.again]
        if self.undo:
            command += ["--undo", stage.paths[JOURNAL] / UNDO]
        return [*command, self.source, stage.target]

    def record(self, stage):
        """Does the run to its end; returns the log."""
        start = stage.disk()
        stage.files.record()
        result = stage.run(*self.command(stage))
        if result.status != 0:
            raise Lost(f"the run itself failed: {result}")
        stage.disk()
        return History(start, list(stage.files.log))

    def half_done(self, history):
        """A disk that is neither the old nor the new one, or else the last."""
        cuts = [cut.disk for cut in history.subsets(2, self.random)
                if cut.disk.content(TARGET, IMAGE) not in (self.old, self.new)]
        return self.random.choice(cuts or [list(history.prefixes())[-1].disk])

    def judge(self, stage, cut, random):
        """Returns what becomes of a disk: "old", "rolled back" or "second run"."""
        self.check_durable(cut)
        if not self.undo:
            return self.run_again(stage, cut)
        verdict = self.roll_back(stage, cut, random)
        if random.random() < 0.2:
            self.run_again(stage, cut)
        return verdict

    def is_old(self, content):
        """Whether a target is as before the run."""
        return content == self.old

    def check_durable(self, cut):
        if cut.statuses and cut.disk.content(TARGET, IMAGE) != self.new:
            raise Lost("the run had ended with 0, and the target is not the replica")

    def run_again(self, stage, cut):
        stage.load(cut.disk)
        result = stage.run("sync", *self.options, *self.again, self.source, stage.target)
        if result.status != 0:
            raise Lost(f"a second run fails: {result}")
        if stage.disk().content(TARGET, IMAGE) != self.new:
            raise Lost("a second run ended with 0, and the target is not the replica")
        return "old" if cut.disk.content(TARGET, IMAGE) == self.old else "second run"

    def roll_back(self, stage, cut, random, journal=UNDO):
        before = cut.disk.content(TARGET, IMAGE)
        if cut.disk.content(JOURNAL, journal) is None:
            if not self.is_old(before):
                raise Lost("the target is not the old one, and there is no journal")
            return "old"
        stage.load(cut.disk)
        result = stage.run("rollback", stage.paths[JOURNAL] / journal)
        after = stage.disk().content(TARGET, IMAGE)
        if result.status != 0:
            if not self.is_old(before):
                raise Lost(f"the target is not the old one, and a rollback fails: {result}")
            if after != before:
                raise Lost(f"a rollback failed, and has written: {result}")
            return "old"
        if after != self.old:
            raise Lost(f"a rollback ended with 0, and the target is not the old one: {result}")
        if random.random() < 0.1:
            result = stage.run("rollback", stage.paths[JOURNAL] / journal)
            if result.status != 0 or stage.disk().content(TARGET, IMAGE) != self.old:
                raise Lost(f"a second rollback: {result}")
        return "old" if before == self.old else "rolled back"


def variant(base, case, text, **fields):
    return type(case, (base,), {"name": case, "title": text, **fields})


class Created(Case):
    """An image that the run creates."""

    name = "sync-new"
    title = "a sync to a new image"

    def prepare(self, stage, random):
        super().prepare(stage, random)
        disk = stage.disk()
        disk.names[TARGET] = {}
        disk.files = {}
        self.old = None
        stage.load(disk)

    def is_old(self, content):
        """An empty image may stay of a run that has written nothing."""
        return not content


class Growing(Case):
    name = "undo-grow"
    title = "an image grows, with --undo"
    undo = True

    def pair(self, random):
        size = random.choice([512, 1280]) * KIB + random.choice([0, 512])
        return Pair(random, size, random.choice([256, 300]) * KIB + random.choice([0, 512, 300]))


class Shrinking(Growing):
    name = "undo-shrink"
    title = "an image shrinks, with --undo"

    def pair(self, random):
        old_size = random.choice([512, 1280]) * KIB + random.choice([0, 512])
        return Pair(random, 256 * KIB + random.choice([0, 512, 300]), old_size)


class RollingBack(Case):
    """A rollback that is cut off, after a complete run or after one that was cut off itself."""

    name = "rollback"
    title = "a rollback of a complete run"
    undo = True
    of_cut = False

    def record(self, stage):
        history = super().record(stage)
        if self.of_cut:
            stage.load(self.half_done(history))
        start = stage.disk()
        stage.files.record()
        result = stage.run("rollback", stage.paths[JOURNAL] / UNDO)
        if result.status != 0:
            raise Lost(f"the rollback itself failed: {result}")
        stage.disk()
        return History(start, list(stage.files.log))

    def judge(self, stage, cut, random):
        if cut.statuses and cut.disk.content(TARGET, IMAGE) != self.old:
            raise Lost("the rollback had ended with 0, and the target is not the old one")
        return self.roll_back(stage, cut, random)


class Repeated(Case):
    """The second run of a pair, after one that was cut off; both have a journal."""

    name = "undo-twice"
    title = "a second run with a second journal"
    undo = True

    def record(self, stage):
        history = super().record(stage)
        self.first = self.old
        stage.load(self.half_done(history))
        start = stage.disk()
        self.old = start.content(TARGET, IMAGE)
        stage.files.record()
        result = stage.run("sync", *self.again, "--undo", stage.paths[JOURNAL] / SECOND,
                           self.source, stage.target)
        if result.status != 0:
            raise Lost(f"the second run itself failed: {result}")
        stage.disk()
        return History(start, list(stage.files.log))

    def judge(self, stage, cut, random):
        self.check_durable(cut)
        verdict = self.roll_back(stage, cut, random, SECOND)
        # Then the first journal leads back to the very beginning.
        if verdict == "rolled back":
            result = stage.run("rollback", stage.paths[JOURNAL] / UNDO)
            if result.status != 0 or stage.disk().content(TARGET, IMAGE) != self.first:
                raise Lost(f"both journals, the last one first: {result}")
        return verdict


class Named(Case):
    """A run with a name, whose state file tells how it went, after one that was complete."""

    name = "named"
    title = "the state file of a named run"
    options = ("--replica", "night")

    def prepare(self, stage, random):
        super().prepare(stage, random)
        new = self.source.read_bytes()
        self.source.write_bytes(self.old)
        result = stage.run(*self.command(stage))
        if result.status != 0:
            raise Lost(f"the run before failed: {result}")
        self.source.write_bytes(new)
        disk = stage.disk()
        self.before = self.state(disk)
        stage.load(disk)

    @staticmethod
    def state(disk):
        texts = [disk.content(STATE, name) for name in disk.names[STATE] if name.endswith(".json")]
        return json.loads(texts[0]) if texts else None

    def judge(self, stage, cut, random):
        try:
            state = self.state(cut.disk)
        except ValueError:
            raise Lost("the state file is damaged") from None
        if state is None:
            raise Lost("the state file is gone")
        target = cut.disk.content(TARGET, IMAGE)
        if state.get("running") is None and state["lastRun"]["exitStatus"] == 0:
            is_late = state["lastRun"] != self.before["lastRun"]
            if target != self.new and (is_late or target != self.old):
                raise Lost("the state file claims a complete replica"
                           + ("" if is_late else ", as if no run had begun"))
        return super().judge(stage, cut, random)


class Pushed(Case):
    """A target on a server."""

    name = "push"
    title = "a push to a server"

    def record(self, stage):
        start = stage.disk()
        try:
            address = stage.serve("--export", f"{stage.target}:rw")
            stage.files.record()
            result = stage.run("sync", *self.again, self.source, f"{address}{stage.target}")
        finally:
            stage.stop_server()
        if result.status != 0:
            raise Lost(f"the run itself failed: {result}")
        stage.disk()
        return History(start, list(stage.files.log))


CASES = [
    Case,
    variant(Case, "sync-device", "a sync to a block device", is_loop=True),
    variant(Case, "whole-file", "--whole-file to a block device", options=("--whole-file",),
            is_loop=True),
    Created,
    variant(Growing, "sync-grow", "an image grows", undo=False),
    variant(Shrinking, "sync-shrink", "an image shrinks", undo=False),
    Pushed,
    variant(Pushed, "push-device", "a push to a server's block device", is_loop=True),
    Named,
    variant(Case, "undo", "a sync to an image, with --undo", undo=True),
    variant(Case, "undo-device", "a sync to a block device, with --undo", undo=True, is_loop=True),
    variant(Case, "undo-whole-file", "--whole-file, with --undo", options=("--whole-file",),
            undo=True, is_loop=True),
    variant(Case, "undo-many", "many small writes, with --undo", undo=True, is_loop=True,
            changes=80),
    variant(Created, "undo-new", "a new image, with --undo", undo=True),
    Growing,
    Shrinking,
    variant(RollingBack, "rollback", "a rollback of a complete run", is_loop=True),
    variant(RollingBack, "rollback-image", "a rollback of a complete run of an image"),
    variant(RollingBack, "rollback-cut", "a rollback of a run that was cut off", of_cut=True),
    variant(RollingBack, "rollback-shrink", "a rollback of an image that has shrunk",
            pair=Shrinking.pair, of_cut=True),
    Repeated,
]
