"""What reads bytes from outside takes any: the targets of `make fuzz`, briefly and without atheris."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import fuzz_targets

TRIED = {"config": 150, "damage": 60, "foreign": 40, "rows": 25, "record": 60}


@pytest.mark.parametrize("target", fuzz_targets.TARGETS)
def test_bytes_are_refused_in_one_sentence_or_read(target):
    chance = random.Random(target)
    begin = fuzz_targets.corpus(target)
    for content in begin:
        fuzz_targets.TARGETS[target](content)
    for _ in range(TRIED[target]):
        spoiled = bytearray(chance.choice(begin))
        for _ in range(chance.randrange(1, 4)):
            spoiled[chance.randrange(len(spoiled))] = chance.randrange(256)
        fuzz_targets.TARGETS[target](bytes(spoiled[: chance.choice([None, None, chance.randrange(len(spoiled))])]))


def test_a_target_notices(monkeypatch):
    """Neither a traceback nor a changed number would go by."""
    monkeypatch.setattr(fuzz_targets, "read_config", lambda path: {}["no sentence"])
    with pytest.raises(KeyError):
        fuzz_targets.config(b"algo: ga")
    _, _, sound = fuzz_targets._shard("runs")
    changed = sound.assign(best_f=sound["best_f"] + 1)
    monkeypatch.setattr(fuzz_targets.Store, "load", lambda self, kind="runs": changed)
    with pytest.raises(AssertionError, match="best_f"):
        fuzz_targets.damage(b"")
