"""Killed anywhere and started again, a sweep gives the same numbers, to the bit."""

import errno
import os
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from evobench import files
from evobench.algorithms import ALGORITHMS
from evobench.evograd import FAMILIES, VARIANTS, checkpoint
from evobench.evograd.checkpoint import Checkpoint, pack, unpack
from evobench.evograd.loop import run_batch
from evobench.experiment import make_experiment
from evobench.problems import make_problem
from evobench.runner import run_experiment
from evobench.store import Store

TENSOR_ALGORITHMS = [name for name, algorithm in ALGORITHMS.items() if algorithm.backend == "evograd"]
KILLS = 25


class Killed(BaseException):
    """Nobody catches this."""


class Fatal(Checkpoint):
    """Saves at certain generations, and dies after each."""

    def __init__(self, path, at):
        super().__init__(path, "it")
        self.at, self.turn = at, 0

    @property
    def due(self):
        self.turn += 1
        return self.turn in self.at

    def save(self, content):
        super().save(content)
        raise Killed


def run(name, saver=None, seeds=(3, 5), dtype=torch.float32):
    algorithm = ALGORITHMS[name]
    return run_batch(
        partial(FAMILIES[algorithm.family].build, algorithm.configure({"plateau_patience": 3})),
        make_problem("rosenbrock", 4),
        gradient=VARIANTS[algorithm.variant].gradient,
        seeds=seeds,
        pop_size=10,
        budget=600,
        init="uniform",
        gradient_cost=1.0,
        dtype=dtype,
        checkpoint=saver,
    )


@pytest.mark.parametrize("name", TENSOR_ALGORITHMS)
def test_a_resumed_batch_computes_the_same(name, tmp_path):
    """Killed after 1, then 7, then 20 more generations."""
    path = tmp_path / "batch.pt"
    for turns in (1, 7, 20):
        with pytest.raises(Killed):
            run(name, Fatal(path, at=(turns,)))
    resumed, whole = run(name, Checkpoint(path, "it")), run(name)
    for one, other in zip(resumed, whole, strict=True):
        assert (one.best_f, one.f_evals, one.g_evals) == (other.best_f, other.f_evals, other.g_evals)
        np.testing.assert_array_equal(one.best_x, other.best_x)
        np.testing.assert_array_equal(one.evals, other.evals)
        np.testing.assert_array_equal(one.history, other.history)
        for learned in other.learned:
            np.testing.assert_array_equal(one.learned[learned], other.learned[learned])


def test_it_really_goes_on_from_the_checkpoint(tmp_path):
    """The counter of turns says that the resumed batch had fewer of them."""
    with pytest.raises(Killed):
        run("pso_diff", Fatal(tmp_path / "batch.pt", at=(20,)))
    whole, resumed = Fatal(tmp_path / "none.pt", at=()), Fatal(tmp_path / "batch.pt", at=())
    run("pso_diff", whole)
    run("pso_diff", resumed)
    assert whole.turn - resumed.turn == 20


@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_a_damaged_or_foreign_checkpoint_is_not_used(content, tmp_path):
    path = tmp_path / "batch.pt"
    with pytest.raises(Killed):
        run("pso_diff", Fatal(path, at=(20,)))
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    assert Checkpoint(path, "it").load() is None
    assert run("pso_diff", Checkpoint(path, "it"))[0].best_f == run("pso_diff")[0].best_f


def test_another_batchs_checkpoint_is_not_used(tmp_path):
    with pytest.raises(Killed):
        run("pso_diff", Fatal(tmp_path / "batch.pt", at=(20,)))
    assert Checkpoint(tmp_path / "batch.pt", "it").load() is not None
    assert Checkpoint(tmp_path / "batch.pt", "another").load() is None


def test_a_full_disk_costs_the_checkpoint_only(tmp_path):
    """Here the directory cannot be made, since a file has its name."""
    (tmp_path / "file").write_text("")
    saver = Checkpoint(tmp_path / "file" / "batch.pt", "it")
    saver.next = 0.0
    assert run("pso_diff", saver)[0].best_f == run("pso_diff")[0].best_f
    assert saver.next > time.perf_counter()  # it was tried


FULL = """
import resource, signal, sys, torch
from pathlib import Path
from evobench.evograd.checkpoint import Checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
Checkpoint(Path(sys.argv[1]), "it").save({"x": torch.zeros(1_000_000)})
print(list(Path(sys.argv[1]).parent.iterdir()))
"""


def test_on_a_full_disk_the_checkpoint_makes_room_for_the_result(tmp_path, monkeypatch):
    monkeypatch.setenv(checkpoint.VARIABLE, "0")
    real, refused = files.write_atomically, []

    def write(path, fill):
        if list((tmp_path / "checkpoints").glob("*.pt")):
            refused.append(path.name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, fill)

    monkeypatch.setattr("evobench.store.write_atomically", write)
    summary = run_experiment(
        make_experiment({"algo": "pso_diff", "fn": "sphere", "dim": 2, "seeds": 2, "pop": 10, "budget": 200}),
        tmp_path,
        jobs=1,
    )
    assert len(refused) == 1
    assert (summary.computed, summary.failures) == (2, [])


def test_a_file_that_cannot_grow_costs_the_checkpoint_only(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path / "x.pt"], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_what_a_killed_save_left_is_removed(tmp_path):
    left = tmp_path / ".x.pt.123-abc.tmp"
    left.write_bytes(b"half")
    saver = Checkpoint(tmp_path / "x.pt", "it")
    saver.save({"x": torch.zeros(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]
    assert torch.equal(saver.load()["x"], torch.zeros(2))


def test_a_flipped_bit_is_noticed(tmp_path):
    saver = Checkpoint(tmp_path / "x.pt", "it")
    saver.save({"x": torch.arange(100)})
    content = (tmp_path / "x.pt").read_bytes()
    chance = random.Random(0)
    for _ in range(200):
        place = chance.randrange(len(content))
        spoiled = content[:place] + bytes([content[place] ^ (1 << chance.randrange(8))]) + content[place + 1 :]
        (tmp_path / "x.pt").write_bytes(spoiled)
        assert saver.load() is None
    (tmp_path / "x.pt").write_bytes(content)
    assert saver.load() is not None


@pytest.mark.parametrize("value", ["30s", "-1", "nan"])
def test_a_bad_interval_is_one_sentence(value, tmp_path, monkeypatch):
    monkeypatch.setenv(checkpoint.VARIABLE, value)
    with pytest.raises(ValueError, match=f"bad EVOBENCH_CHECKPOINT_S '{value}': give a number of seconds"):
        Checkpoint(tmp_path / "x.pt", "it")


def test_fresh_forgets_checkpoints(tmp_path):
    experiment = make_experiment({"algo": "pso_plain", "fn": "ackley", "dim": 3, "seeds": 2, "budget": 200, "pop": 20})
    (cell,) = experiment.cells()
    kept = Store(tmp_path).checkpoint(cell.key, experiment.seeds)
    kept.parent.mkdir(parents=True)
    kept.write_text("")
    Store(tmp_path).clear(cell.key, experiment.seeds)
    assert not kept.exists()


def test_what_was_one_tensor_is_one_again():
    one, other = torch.ones(2), torch.zeros(1)
    tree = ((one, None), {"a": one, "b": other})
    tensors, places = pack(tree)
    assert len(tensors) == 3
    (first, nothing), rest = unpack((tensors, places), tree, "cpu")
    assert first is rest["a"]
    assert nothing is None
    assert torch.equal(rest["b"], other)


def test_saving_stays_a_small_share_of_the_time(tmp_path, monkeypatch):
    monkeypatch.setenv(checkpoint.VARIABLE, "0")
    saver = Checkpoint(tmp_path / "batch.pt", "it")
    before = time.perf_counter()
    saver.save({"x": torch.zeros(1_000_000)})
    took = time.perf_counter() - before
    assert saver.next - time.perf_counter() > 0.5 * took / checkpoint.SHARE


def test_a_sweep_killed_many_times_ends_as_if_it_had_not_been(tmp_path):
    """Real processes, killed at random instants by three signals."""
    script = Path(__file__).parents[1] / "scripts" / "kill_sweep.py"
    command = [sys.executable, script, "--kills", str(KILLS), "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == f"{KILLS} kills: the same rows\n", done.stdout + done.stderr
    assert done.returncode == 0


def test_the_comparison_notices_a_difference(tmp_path):
    """One row less, one value off by a bit, a checkpoint left behind."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
    try:
        from kill_sweep import differences
    finally:
        sys.path.pop(0)
        os.environ.pop("EVOBENCH_CHECKPOINT_S", None)
    experiment = make_experiment({"algo": "pso_plain", "fn": "ackley", "dim": 3, "seeds": 2, "budget": 200, "pop": 20})
    for name in ("whole", "same", "less", "off"):
        run_experiment(experiment, tmp_path / name, jobs=1)
    assert differences(tmp_path / "whole", tmp_path / "same") == []
    Store(tmp_path / "less").clear(experiment.cells()[0].key, [1])
    assert len(differences(tmp_path / "whole", tmp_path / "less")) == 2
    (path,) = (tmp_path / "off" / "runs").iterdir()
    table = pq.read_table(path)
    off = pa.array(np.nextafter(table["best_f"].to_numpy(), np.inf))
    pq.write_table(table.set_column(table.schema.get_field_index("best_f"), "best_f", off), path)
    assert len(differences(tmp_path / "whole", tmp_path / "off")) == 1
    (tmp_path / "same" / "x.pt").write_text("")
    assert len(differences(tmp_path / "whole", tmp_path / "same")) == 1
