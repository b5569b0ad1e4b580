"""`--executor ray` on a real cluster of this machine: the local executor's rows, whatever happens to a worker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from test_runner import CLOCK, Witness, assert_same_results, tiny

from evobench.runner import run_experiment
from evobench.store import load_results

pytestmark = [
    pytest.mark.ray,
    # Ray leaves sockets and files to the garbage collector, and announces changes of its own.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:ray"),
]

SLOW = """
import os, time

def slow(x):
    time.sleep(0.02)
    if os.getpid() != {driver} and not os.path.exists({pid!r}):
        open({pid!r}, "w").write(str(os.getpid()))
    return x.square().sum(-1)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a cluster of two cores, whose workers can import what lies in its directory."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install ray")
    directory = tmp_path_factory.mktemp("ray")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), str(directory)])}
    start = ["start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats", "--include-dashboard=false"]
    command = [sys.executable, "-m", "ray.scripts.scripts", *start, f"--port={address.rpartition(':')[2]}"]
    command += ["--object-store-memory=100000000", "--node-ip-address=127.0.0.1"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        for line in process.stdout:
            if "--block" in line:
                break
        else:
            pytest.fail("the cluster does not start")
        try:
            yield address, directory
        finally:
            process.terminate()


def test_the_same_rows_as_on_this_machine(cluster, tmp_path):
    address, _ = cluster
    local, ray = tmp_path / "local", tmp_path / "ray"
    run_experiment(tiny(), local, jobs=2)
    witness = Witness()
    summary = run_experiment(tiny(), ray, listener=witness, executor="ray", address=address)
    assert summary.failures == []
    assert len(witness.done) == len(witness.plan.tasks)
    assert_same_results(local, ray)
    assert not (ray / "leases").exists()
    summary = run_experiment(tiny(), ray, executor="ray", address=address)
    assert summary.computed == 0


def test_a_worker_that_is_killed(cluster, tmp_path, monkeypatch):
    """Its task is tried again, and nothing is missing."""
    address, importable = cluster
    pid = tmp_path / "pid"
    (importable / "slowly.py").write_text(SLOW.format(pid=str(pid), driver=os.getpid()))
    monkeypatch.syspath_prepend(str(importable))
    experiment = tiny(fn="slowly:slow", algo="pso_diff,cmaes_plain,ga")

    def kill() -> None:
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.01)
        os.kill(int(pid.read_text()), signal.SIGKILL)

    run_experiment(experiment, tmp_path / "local", jobs=1)
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    witness = Witness()
    summary = run_experiment(experiment, tmp_path / "ray", listener=witness, executor="ray", address=address)
    killer.join()
    assert summary.failures == []
    assert any("gone" in notice and notice.endswith("; tried again") for notice in witness.notices), witness.notices
    one, other = (load_results(tmp_path / name).drop(columns=[*CLOCK, "best_x"]) for name in ("local", "ray"))
    assert one.equals(other)


def parent_of(pid: str) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended
        return None


def test_a_machine_that_is_lost(tmp_path, monkeypatch):
    """Of three: the one with the driver computes nothing, and one of the others is killed with all its processes."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install ray")
    from ray.cluster_utils import Cluster

    pid = tmp_path / "pid"
    (tmp_path / "somewhere.py").write_text(SLOW.format(pid=str(pid), driver=os.getpid()))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent.parent), str(tmp_path)]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    experiment = tiny(fn="somewhere:slow", algo="pso_diff,cmaes_plain,ga")
    run_experiment(experiment, tmp_path / "local", jobs=1)

    small = {"object_store_memory": 80_000_000, "include_dashboard": False}
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        others = [machines.add_node(num_cpus=1, **small) for _ in range(2)]
        lost = []

        def kill() -> None:
            while not (pid.exists() and pid.read_text()):
                time.sleep(0.01)
            raylet = parent_of(pid.read_text())
            workers = [int(place.name) for place in Path("/proc").glob("[0-9]*") if parent_of(place.name) == raylet]
            (victim,) = [node for node in others if node.all_processes["raylet"][0].process.pid == raylet]
            machines.remove_node(victim, allow_graceful=False)
            for worker in workers:  # they would finish their tasks, and a machine that is lost has none
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
            lost.append(victim)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        witness, directory = Witness(), tmp_path / "ray"
        summary = run_experiment(experiment, directory, listener=witness, executor="ray", address=machines.address)
        killer.join(timeout=10)
    finally:
        machines.shutdown()
    assert len(lost) == 1
    assert summary.failures == []
    again = [notice for notice in witness.notices if "its worker or machine is gone" in notice]
    assert again, witness.notices
    assert all(notice.endswith("; tried again") for notice in again)
    assert_same_results(tmp_path / "local", directory)


def test_no_cluster(tmp_path, refused):
    pytest.importorskip("ray")
    with refused("no Ray cluster at '127.0.0.1:9'"):
        run_experiment(tiny(), tmp_path / "results", executor="ray", address="127.0.0.1:9")
    assert not (tmp_path / "results").exists()
