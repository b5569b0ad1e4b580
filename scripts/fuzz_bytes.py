"""Bytes from outside, chosen by the branches that they reach: configs, shards, records of other processes.

    python scripts/fuzz_bytes.py [--seconds 60] [--target config] [--corpus DIR]        (make fuzz)

Needs atheris (pip install 'evograd-bench[fuzz]'). Each target of `scripts/fuzz_targets.py` runs in a process of
its own; an input that is neither refused in one sentence nor read ends it, is kept, and makes the exit code 1.
With a corpus directory, what one run has found is where the next begins.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TARGETS = ("config", "damage", "foreign", "rows", "record")


def fuzz(target: str, seconds: int, corpus: Path) -> None:
    """In a process of its own: never returns."""
    import atheris

    os.fsync = lambda descriptor: None  # type: ignore[assignment]  # that guards against power cuts only
    with atheris.instrument_imports(include=["evobench", "yaml"]):
        targets = importlib.import_module("fuzz_targets")
    directory = corpus / target
    directory.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(targets.corpus(target)):
        (directory / f"begin-{number}").write_bytes(content)
    flags = [f"-max_total_time={seconds}", "-timeout=30", "-rss_limit_mb=4096", "-print_final_stats=1"]
    flags.append(f"-artifact_prefix={corpus}/{target}-")
    if target == "config":
        lines = (f'"{word}"' for word in targets.words())
        (corpus / "words").write_text("\n".join(lines))
        flags += [f"-dict={corpus / 'words'}", "-max_len=4000"]
    atheris.Setup([sys.argv[0], *flags, str(directory)], targets.TARGETS[target])
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each target [60]")
    parser.add_argument("--target", choices=TARGETS, action="append", help="repeatable [all]")
    parser.add_argument("--corpus", type=Path, help="where inputs are kept [nowhere]")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        fuzz(options.target[0], options.seconds, options.corpus)
    corpus = (options.corpus or Path(tempfile.mkdtemp(prefix="fuzz-"))).resolve()
    total, failed = 0, []
    for target in options.target or TARGETS:
        command = [sys.executable, __file__, "--here", "--target", target, "--seconds", str(options.seconds)]
        with tempfile.TemporaryDirectory() as scratch:  # libFuzzer ends its process too abruptly to tidy
            environment = {**os.environ, "TMPDIR": scratch}
            done = subprocess.run(
                [*command, "--corpus", str(corpus)], stderr=subprocess.PIPE, text=True, env=environment
            )
        tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
        count = int(tried[1]) if tried else 0
        total += count
        print(f"{count:9,} {target}{'' if done.returncode == 0 else ': failed'}", flush=True)
        if done.returncode != 0:
            failed.append(target)
            print(done.stderr[-6000:], file=sys.stderr)
    print(f"{total:9,} inputs{f'; what failed is in {corpus}' if failed else ''}")
    if not failed and not options.corpus:
        shutil.rmtree(corpus)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
