"""Hostile input, much of it: configs, flags, damaged parquet files, objectives. The tests have a short version.

    python scripts/fuzz.py [--n 20000] [--seed 1]

Each input has to be refused with one sentence, or to work: no other exception, nothing written outside the
output directory, and a damaged file is refused or reads as before. What is not so is printed, and the exit code
is 1. `scripts/fuzz_bytes.py` looks for such inputs by the branches that they reach.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import string
import sys
import tempfile
import time
import traceback
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import typer.main
import yaml

import evobench.runner
from evobench.cli import app
from evobench.configs import read_config, shipped_configs
from evobench.experiment import Experiment, make_experiment
from evobench.runner import Summary, run_experiment
from evobench.store import KINDS, Kind, Store, StoreError

SOUND = {"algo": "pso_diff,ga", "fn": "sphere", "dim": 2, "seeds": 2, "budget": 60, "pop": 10, "device": "cpu"}
CONFIGS = [SOUND, *(yaml.safe_load(path.read_text()) for path in sorted(shipped_configs().glob("*.yaml")))]

COMMAND = typer.main.get_command(app)  # `app` itself would be built anew at every call

SCRAPS: tuple[Any, ...] = (
    None, True, -1, 0, 1, 1.5, 10**30, float("nan"), float("inf"), "", "all", "ga", "ackley", "30", "0-3", "1,2,,",
    "../../x", "/etc/passwd",
    "a\nb", "\x00", "é" * 300, [], {}, [[]], {"a": {"b": 1}}, ["ga", "ga"], {"ga": {"eta_c": "x"}},
)  # fmt: skip

OBJECTIVES = """
import math, sys
import torch
CHOICE = {"what": "", "calls": 0}

def hostile(x):
    CHOICE["calls"] += 1
    value = x.square().sum(-1)
    match CHOICE["what"]:
        case "nan": return value * math.nan
        case "inf": return value + math.inf
        case "-inf": return value - math.inf
        case "shape": return value[..., None]
        case "scalar": return torch.tensor(1.0)
        case "text": return "no number"
        case "none": return None
        case "complex": return value * 1j
        case "integer": return value.long()
        case "raises": raise RuntimeError("a bug\\nof two lines")
        case "later" if CHOICE["calls"] > 9: raise KeyError("after a while")
        case "memory" if CHOICE["calls"] > 5: raise MemoryError
        case "exit": sys.exit(3)
        case "changes": x.mul_(0); return value
        case "recursion": return hostile(x)
        case "huge": return value * 1e308
    return value
"""

KINDS_OF_TROUBLE = [
    "nan", "inf", "-inf", "shape", "scalar", "text", "none", "complex", "integer", "raises", "later", "memory", "exit",
    "changes", "recursion", "huge",
]  # fmt: skip


def must(true: bool, what: str) -> None:
    if not true:
        raise AssertionError(what)


def must_be_a_sentence(message: str) -> None:
    must(bool(message.strip()), "an empty message")
    must(message.isprintable() and len(message) < 1000, f"no one line: {message!r:.2000}")


def a_value(chance: random.Random) -> Any:
    if chance.random() < 0.7:
        return chance.choice(SCRAPS)
    return "".join(chance.choices(string.printable, k=chance.randrange(20)))


def a_config(chance: random.Random, directory: Path) -> str:
    """A sound config with keys of others or with something wrong in it, as data or as text."""
    content: dict[str, Any] = dict(chance.choice(CONFIGS))
    for _ in range(chance.randrange(3)):
        content.update([chance.choice(list(chance.choice(CONFIGS).items()))])
    for _ in range(chance.randrange(3)):
        key = chance.choice([*Experiment.model_fields, str(a_value(chance))])
        content[key] = a_value(chance)
    text = yaml.safe_dump(content, allow_unicode=True)
    if chance.random() < 0.5:
        at = chance.randrange(len(text))
        text = (
            text[:at] + "".join(chance.choices("{}[]:&*!%@`\"'#|>-?,\t\n\x00é", k=3)) + text[at + chance.randrange(9) :]
        )
    path = directory / "config.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        make_experiment(read_config(path)).cells()
    except ValueError as error:
        must_be_a_sentence(str(error))
        return "refused"
    return "sound"


def some_flags(chance: random.Random, directory: Path) -> str:
    """The command line, without the run itself."""
    words = ["run"]
    for key, value in SOUND.items():
        words += [f"--{key}", str(value if chance.random() < 0.8 else a_value(chance))]
    for _ in range(chance.randrange(3)):
        flag = chance.choice(["--set", "--jobs", "--out", "--shift", "--protocol", "--executor", "--init", "--no-such"])
        words += [flag, str(a_value(chance)), *(["--fresh"] if chance.random() < 0.1 else [])]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as complaint:
        try:
            COMMAND(words, prog_name="evobench")
        except SystemExit as end:
            text = complaint.getvalue()
            must(end.code in (0, 2), f"exit code {end.code} of {words}: {text}")
            if end.code == 2:
                must(text.startswith("error: ") and text.count("\n") == 1, f"no one sentence: {text}")
                return "refused"
    return "sound"


@cache
def whole(directory: Path, kind: Kind) -> pd.DataFrame:
    return Store(directory).load(kind)


def a_damaged_file(chance: random.Random, directory: Path) -> str:
    """Bits flipped, or the end cut off, in one file of a store."""
    store = Store(directory / "store")
    kind = chance.choice(KINDS)
    path = chance.choice(store.files(kind))
    content = path.read_bytes()
    spoiled = bytearray(content)
    if chance.random() < 0.2:
        del spoiled[chance.randrange(len(spoiled)) :]
    else:
        for _ in range(chance.randrange(1, 4)):
            spoiled[chance.randrange(len(spoiled))] ^= 1 << chance.randrange(8)
    sound = whole(store.directory, kind)
    path.write_bytes(spoiled)
    try:
        pd.testing.assert_frame_equal(store.load(kind), sound, check_exact=True)
    except StoreError:
        return "refused"
    finally:
        path.write_bytes(content)
    return "harmless"


def an_objective(chance: random.Random, directory: Path) -> str:
    """A user's function that misbehaves, whole experiments of it."""
    module = sys.modules.get("hostile_objectives")
    what = chance.choice(KINDS_OF_TROUBLE)
    if module is not None:
        module.CHOICE.update(what=what, calls=0)
    else:
        import hostile_objectives

        hostile_objectives.CHOICE["what"] = what
    algo = chance.choice(["ga", "de", "pso", "cmaes", "pso_plain", "ga_diff", "cmaes_guarded", "de_released"])
    try:
        summary = run_experiment(
            make_experiment({**SOUND, "algo": algo, "fn": "hostile_objectives:hostile"}),
            directory / "objectives",
            jobs=1,
            fresh=True,
        )
    except ValueError as error:
        must_be_a_sentence(str(error))
        return "refused"
    return "failed" if summary.failures else "sound"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance, began, counts = random.Random(options.seed), time.perf_counter(), Counter[str]()
    os.fsync = lambda descriptor: None  # type: ignore[assignment]  # that guards against power cuts only
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        os.chdir(directory)
        (directory / "hostile_objectives.py").write_text(OBJECTIVES)
        sys.path.insert(0, name)
        run_experiment(make_experiment(SOUND), directory / "store", jobs=1)
        real = evobench.runner.run_experiment
        for number in range(options.n):
            kind, share = a_config, number % 100
            if share >= 40:
                kind = some_flags if share < 70 else a_damaged_file if share < 98 else an_objective
            try:
                evobench.runner.run_experiment = real if kind is an_objective else lambda *_, **__: Summary()
                counts[f"{kind.__name__}: {kind(chance, directory)}"] += 1
            except (Exception, SystemExit):
                print(f"input {number}, seed {options.seed}:\n{traceback.format_exc()}", file=sys.stderr)
                counts["not refused, and does not work"] += 1
        allowed = {"store", "objectives", "hostile_objectives.py", "__pycache__", "config.yaml"}
        stray = {path.name for path in directory.iterdir()} - allowed
        must(not stray, f"written outside: {stray}")
    for what, count in sorted(counts.items()):
        print(f"{count:6,} {what}")
    print(f"{options.n:6,} inputs in {time.perf_counter() - began:.0f} s")
    sys.exit("not refused, and does not work" in counts)


if __name__ == "__main__":
    main()
