"""Would `evobench check` notice? Deliberate faults in copies of the package, and clean runs.

    python scripts/check_power.py            every fault, on the whole check, both ways of comparing
    python scripts/check_power.py --quick    each fault on the smallest part of the check that must see it
    python scripts/check_power.py --clean 50 as many checks of fresh seeds: none may raise an alarm

Each fault is a substitution of text that must match exactly once. A copy runs in a forked process, so
that torch and the rest are imported once; this script itself must not import evobench before.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).resolve().parents[1] / "evobench"


class Fault(NamedTuple):
    """A fault, and the smallest part of the check that must see it, to the bit and by distribution."""

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    algo: str
    fn: str


FAULTS = (
    Fault(
        "wrong sign in the velocity update",
        "evograd/pso.py",
        (("+ c1[..., None] * noise.r1 * (personal_x - x)", "- c1[..., None] * noise.r1 * (personal_x - x)"),),
        "pso_diff",
        "rosenbrock",
    ),
    Fault(
        "elitism off",
        "evograd/ga.py",
        (("        x, fitness = replace_worst(x, fitness, state.elite_x, state.elite_f)\n", ""),),
        "ga_plain",
        "griewank",
    ),
    Fault(
        "CSA damping halved",
        "evograd/cmaes.py",
        (("(c.c_sigma / c.damps * (length - 1))", "(c.c_sigma / (c.damps / 2) * (length - 1))"),),
        "cmaes_plain",
        "ackley",
    ),
    Fault(
        "reflection replaced by clamping",
        "evograd/space.py",
        (
            (
                "return torch.where(folded != folded, 0.0, folded).clamp(space.lower, space.upper)",
                "return torch.where(folded != folded, 0.0, x).clamp(space.lower, space.upper)",
            ),
        ),
        "pso_diff",
        "ackley",
    ),
    Fault(
        "a seed ignored",
        "evograd/space.py",
        (("np.random.SFC64(seed)", "np.random.SFC64(1)"),),
        "pso_plain",
        "ackley",
    ),
    Fault(
        "Adam's bias correction gone",
        "evograd/outer.py",
        (("state.lr / (1 - decay1)", "state.lr"), ("(1 - decay2).sqrt()", "torch.ones_like(decay2)")),
        "pso_diff",
        "michalewicz",
    ),
)


def copied(directory: Path, fault: Fault) -> Path:
    """A copy of the package with the fault in it."""
    shutil.copytree(PACKAGE, directory / "evobench", ignore=shutil.ignore_patterns("__pycache__"))
    path = directory / "evobench" / fault.file
    text = path.read_text(encoding="utf-8")
    for old, new in fault.changes:
        if text.count(old) != 1:
            raise SystemExit(f"{fault.name}: {old!r} is {text.count(old)} times in {fault.file}, not once")
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return directory


def in_a_fork(work: Any) -> Any:
    """What `work` returns in a process of its own."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reader)
        try:
            answer = json.dumps(work())
        except BaseException as error:
            answer = json.dumps({"error": f"{type(error).__name__}: {error}"})
        with os.fdopen(writer, "w") as file:
            file.write(answer)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        answer = json.loads(file.read())
    os.waitpid(child, 0)
    if isinstance(answer, dict) and "error" in answer:
        raise SystemExit(answer["error"])
    return answer


def alarms(package: Path, algos: list[str] | None, fns: list[str] | None) -> dict[str, list[str]]:
    """The cells that fail in this copy of the package: to the bit, and by distribution."""

    def work() -> dict[str, list[str]]:
        sys.path.insert(0, str(package))
        import evobench
        from evobench import check

        if Path(evobench.__file__).parents[1] != package:
            raise RuntimeError(f"another copy of the package is in the way: {evobench.__file__}")
        known = check.load(check.REFERENCE).runs
        runs = check.measure(check.check_set(algos or check.ALGOS, fns or check.FNS, check.SEEDS), jobs=1)
        found = {}
        for name, exact in (("exact", True), ("distribution", False)):
            table = check.compare(runs, known, exact=exact)
            failed = table[table["finding"] != ""]
            found[name] = [f"{row.algo} {row.fn} p={row.p:.1g}" for row in failed.itertuples()]
        return found

    return in_a_fork(work)


def clean(count: int) -> int:
    """How many of `count` checks of fresh seeds raise an alarm. Their runs are computed together."""

    def work() -> int:
        sys.path.insert(0, str(PACKAGE.parent))
        from evobench import check

        known = check.load(check.REFERENCE).runs
        first, n = 1_000, check.SEEDS
        experiment = check.check_set(check.ALGOS, check.FNS, f"{first}-{first + count * n - 1}")
        runs = check.measure(experiment, jobs=1)
        false = 0
        least = 1.0
        for number in range(count):
            low = first + number * n
            table = check.compare(runs[runs["seed"].between(low, low + n - 1)], known, exact=False)
            least = min(least, table["p"].min())
            false += bool((table["finding"] != "").any())
        print(f"least Holm-corrected p of any check: {least:.3g}")
        return false

    return in_a_fork(work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clean", type=int, metavar="N")
    options = parser.parse_args()
    import cma  # noqa: F401 - once for all forks
    import pyarrow.parquet  # noqa: F401
    import pymoo.optimize  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch

    torch.set_num_threads(1)
    if options.clean:
        false = clean(options.clean)
        print(f"{false} alarms in {options.clean} clean checks")
        sys.exit(bool(false))
    missed = 0
    for fault in FAULTS:
        part = ([fault.algo], [fault.fn]) if options.quick else (None, None)
        with tempfile.TemporaryDirectory() as directory:
            found = alarms(copied(Path(directory), fault), *part)
        missed += not (found["exact"] and found["distribution"])
        print(f"{fault.name}: {len(found['exact'])} cells to the bit, {len(found['distribution'])} by distribution")
        for line in found["distribution"]:
            print(f"    {line}", flush=True)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
