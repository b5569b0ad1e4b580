"""`evobench doctor`: what this machine has for the work, and whether it is as fast as it should be."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from typing import Any, NamedTuple

import torch

import evobench
from evobench.algorithms import ALGORITHMS, UNAVAILABLE
from evobench.executors import keep_freed_memory
from evobench.experiment import Experiment, check_compiler, make_experiment
from evobench.runner import cores
from evobench.tasks import Task, execute, provenance

SECONDS = 2.0
"""How long the speed is measured, about."""

SHIPPED_MS = 2.7
"""Milliseconds of a generation of `pso_diff`, 30 runs, Ackley 30D, float32, not compiled: the median of
results/speed/bench-30d.parquet, on two cores of an AMD EPYC with AVX-512."""

SLOW = 3.0
"""From this many times the shipped time on, the machine is called slow: without AVX-512 it takes two to three."""


class Line(NamedTuple):
    """A fact, and what is wrong with it, if anything."""

    name: str
    value: str
    warning: str = ""


def examine() -> list[Line]:
    """Everything but the speed."""
    here = provenance()
    threads = torch.get_num_threads()
    lines = [
        Line("evobench", f"{evobench.__version__} {here['git_commit'][:10]}".strip()),
        Line("python", f"{here['python_version']} on {here['platform']}"),
        *(Line(name, version(name)) for name in ("torch", "numpy", "scipy", "pymoo", "cma")),
        Line("processor", here["cpu"]),
        Line(
            "cores",
            f"{cores()} of {os.cpu_count()} for this process, {threads} torch threads",
            "" if threads <= cores() else f"more threads than cores: set OMP_NUM_THREADS={cores()}",
        ),
        Line("load", *_load()),
        Line("blas", _blas()),
        Line("device", _device()),
    ]
    try:
        check_compiler("cpu")
        lines.append(Line("--compile", "a C++ compiler is there"))
    except ValueError as error:
        lines.append(Line("--compile", "not possible", str(error)))
    absent = f", not {', '.join(UNAVAILABLE)}" if UNAVAILABLE else ""
    lines.append(Line("algorithms", f"{len(ALGORITHMS)} available{absent}"))
    return lines


def _load() -> tuple[str, str]:
    if not hasattr(os, "getloadavg"):
        return "unknown", ""
    load = os.getloadavg()[0]
    busy = "the machine is busy: times will be longer" if load > 0.75 * cores() else ""
    return f"{load:.1f} processes in the last minute", busy


def _blas() -> str:
    known = [part.strip(" -") for part in torch.__config__.show().splitlines() if "BLAS" in part or "MKL" in part]
    names = {name for name in ("mkl", "open", "accelerate") if f"BLAS_INFO={name}" in " ".join(known)}
    vectors = torch.backends.cpu.get_cpu_capability()
    return f"{', '.join(sorted(names)) or platform.machine()}, vectors: {vectors}"


def _device() -> str:
    if not torch.cuda.is_available():
        return "cpu (no CUDA device)"
    about: Any = torch.cuda.get_device_properties(0)
    return f"cuda: {about.name}, {about.total_memory / 2**30:.0f} GiB"


def measure(seconds: float = SECONDS) -> Line:
    """Milliseconds of a generation, beside the shipped ones."""

    def generations(count: int) -> float:
        experiment = _speed_set(count)
        (cell,) = experiment.cells()
        started = time.perf_counter()
        execute(Task(cell, experiment.seeds), lambda share, best: None)
        return time.perf_counter() - started

    keep_freed_memory()  # as a run does
    warm = generations(10) / 10
    count = max(20, int(seconds / warm))
    taken = generations(count) / count * 1e3
    ratio = taken / SHIPPED_MS
    value = f"{taken:.1f} ms a generation (pso_diff, 30D, 30 runs); shipped: {SHIPPED_MS:g} ms"
    return Line("speed", value, f"{ratio:.1f} times the shipped time" if ratio > SLOW else "")


def _speed_set(generations: int) -> Experiment:
    return make_experiment(
        {"algo": "pso_diff", "fn": "ackley", "dim": 30, "budget": 100 * (generations + 1), "device": "cpu"}
    )
