"""Tasks on an existing Ray cluster (`pip install 'evograd-bench[ray]'`).

A worker returns a task's rows, and this process, the driver, writes them: workers need no directory in
common. Each task asks for what it needs, so the cluster spreads them; Ray's own retries are off, since
the runner's are the same for every executor. Workers have one thread, as the processes of `Pool` do,
and give the same bits on the same kind of machine.
"""

from __future__ import annotations

import logging
import socket
import time
from typing import Any, Self

import evobench
from evobench.executors import WORKER_ENVIRONMENT, Outcome, single_threaded
from evobench.store import Store, StoreError
from evobench.tasks import Context, Failure, Rows, Task, code_digest, compute_rows, failure_of, provenance

PROCESS = 0.75 * 2**30
"""Bytes that a worker takes beside its tensors: mostly torch."""

ANSWER = 120.0
"""Seconds that a cluster has to start its first worker, which imports torch."""

AHEAD = 2
"""Tasks handed over for each that the cluster's cores can run, so that none waits for the driver."""


class Cluster:
    """Submits at most `AHEAD` tasks a core, or `jobs` in all."""

    def __init__(self, address: str | None, context: Context, jobs: int | None) -> None:
        """Connect.

        Raises:
            ValueError: if Ray is not installed, or there is no cluster that can run evobench.
        """
        self.context, self.jobs = context, jobs
        self.running: dict[Any, Task] = {}
        try:
            import ray
        except ImportError:
            raise ValueError("executor 'ray' needs Ray, which is not installed: pip install ray") from None
        self.ray: Any = ray
        try:
            if address:
                _answers(address)
            ray.init(
                address or "auto",
                namespace="evobench",
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": WORKER_ENVIRONMENT},
            )
        except (OSError, RuntimeError, ValueError) as error:
            what = f"no Ray cluster at '{address}'" if address else "no Ray cluster is running on this machine"
            raise ValueError(f"{what}: start one with 'ray start --head', or give its --address") from error
        try:
            theirs = ray.get(ray.remote(_version).options(num_cpus=0).remote(), timeout=ANSWER)
        except ray.exceptions.RayError as error:
            self.__exit__()
            raise ValueError(f"the Ray cluster cannot run evobench: {_last_line(error)}") from error
        if theirs != _version():
            self.__exit__()
            raise ValueError(f"the Ray cluster has another evobench ({theirs[0]}) than this machine: install the same")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for reference in self.running:
            self.ray.cancel(reference, force=True)
        self.running.clear()
        self.ray.shutdown()

    @property
    def slots(self) -> int:
        """As many as the cluster has room for now: it may grow."""
        return self.jobs or max(1, AHEAD * int(self.ray.cluster_resources().get("CPU", 1)))

    def submit(self, task: Task) -> None:
        remote = self.ray.remote(_work).options(name=str(task), max_retries=0, **self._needs(task))
        self.running[remote.remote(task, self.context[0], (_version(), task.cell.settings_hash))] = task

    def ended(self, seconds: float) -> list[tuple[Task, Outcome]]:
        if not self.running:
            time.sleep(seconds)
            return []
        references, _ = self.ray.wait(list(self.running), num_returns=1, timeout=seconds)
        return [(self.running.pop(reference), self._outcome(reference)) for reference in references]

    def _needs(self, task: Task) -> dict[str, float]:
        """One core, the estimated memory (but not more than the largest machine has), a GPU if it is for one."""
        if task.cell.device == "cuda" and not self.ray.cluster_resources().get("GPU"):
            raise ValueError("no machine of the Ray cluster has a GPU: choose --device cpu")
        largest = max(node["Resources"].get("memory", 0) for node in self.ray.nodes() if node["Alive"])
        gpus = {"num_gpus": 1} if task.cell.device == "cuda" else {}
        return {"num_cpus": 1, "memory": min(PROCESS + task.memory, largest), **gpus}

    def _outcome(self, reference: Any) -> Outcome:
        """What a task returned, stored."""
        errors = self.ray.exceptions
        try:
            result: Rows | Failure = self.ray.get(reference)
        except errors.OutOfMemoryError:
            return Failure("out of memory: Ray ended its worker", "memory")
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError) as error:
            return Failure(f"its worker or machine is gone ({type(error).__name__})", "killed")
        except errors.RayError as error:
            return Failure(f"its worker could not run it: {_last_line(error)}")
        if isinstance(result, Failure):
            return result
        try:
            Store(self.context[1]).write(*result)
        except StoreError as error:
            return failure_of(error)
        return result[0]


def _answers(address: str) -> None:
    """Ray itself would try for minutes.

    Raises:
        OSError: if nobody listens there.
        ValueError: if it is no address.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host, int(port)), timeout=10).close()


def _version() -> tuple[str, str]:
    """Of this machine's evobench: its number, and a digest of its code."""
    return evobench.__version__, code_digest()


def _last_line(error: Exception) -> str:
    """What a remote traceback ends with."""
    return str(error).strip().splitlines()[-1].strip() if str(error).strip() else type(error).__name__


def _work(task: Task, experiment: str, expected: tuple[tuple[str, str], str]) -> Rows | Failure:
    """On a worker: a task's rows, which say where they were computed."""
    single_threaded()
    try:
        if (_version(), task.cell.settings_hash) != expected:
            raise ValueError("a machine of the cluster has another version of evobench, pymoo or cma")
        return compute_rows(task, experiment, provenance(), lambda share, best: None)
    except BaseException as error:  # as `compute`; a worker that is told to end gets a signal
        return failure_of(error)
