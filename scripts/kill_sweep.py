"""Kill a sweep many times at random instants; it must end with the rows of one that was left alone.

    python scripts/kill_sweep.py [--kills 200] [--out DIR]

Real processes are forked (after the imports, which take longer than the sweep), killed by SIGKILL,
SIGTERM or SIGINT, and started again with the same command. Checkpoints are taken every 0.05 s. Rows
are compared to the bit, all but seconds and date. The tests run this with 25 kills.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ["EVOBENCH_CHECKPOINT_S"] = "0.05"

import pandas as pd
import yaml

import evobench.runner
import evobench.terminal  # noqa: F401
from evobench.cli import main as evobench_main
from evobench.store import load_results

SWEEP = {
    "algo": ["cmaes_diff", "ga_guarded", "pso_released", "de"],
    "fn": "griewank",
    "dim": 8,
    "seeds": 3,
    "pop": 20,
    "budget": 8_000,
}


def start(config: Path, out: Path) -> int:
    """The process number of `evobench run`, forked before torch has computed anything."""
    child = os.fork()
    if child == 0:
        with Path(os.devnull).open("w") as nowhere:
            sys.stdout = sys.stderr = nowhere
            sys.argv[1:] = ["run", str(config), "--out", str(out), "--jobs", "1", "--quiet"]
            evobench_main()
    return child


def succeeded(child: int) -> bool:
    """Whether the process ended by itself, with exit code 0."""
    return os.waitpid(child, 0)[1] == 0


def kill_often(config: Path, out: Path, kills: int) -> None:
    """Start the sweep and kill it, again and again."""
    chance, done = random.Random(1), 0
    while done < kills:
        child = start(config, out)
        time.sleep(chance.uniform(0.05, 0.5))
        os.kill(child, chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        if succeeded(child):  # it was finished before: once more
            shutil.rmtree(out)
        else:
            done += 1


def differences(whole: Path, killed: Path) -> list[str]:
    """What the two directories differ in."""
    found = [f"left behind: {path}" for path in killed.rglob("*.pt")]
    for kind, unlike in (("runs", ["wall_s", "started_at"]), ("history", [])):
        one, other = (load_results(directory, kind).drop(columns=unlike) for directory in (whole, killed))
        try:
            pd.testing.assert_frame_equal(one, other, check_exact=True)
        except AssertionError as error:
            found.append(f"{kind}: {error}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--out", type=Path, help="where to work, and to leave both results")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="kill-sweep-"))
    out.mkdir(parents=True, exist_ok=True)
    config = out / "sweep.yaml"
    config.write_text(yaml.safe_dump(SWEEP))
    whole, killed = out / "whole", out / "killed"
    if not succeeded(start(config, whole)):
        sys.exit("the sweep fails even when it is left alone")
    kill_often(config, killed, options.kills)
    if not succeeded(start(config, killed)):
        sys.exit("the sweep fails after it was killed")
    found = differences(whole, killed)
    print(f"{options.kills} kills: {'; '.join(found) or 'the same rows'}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
