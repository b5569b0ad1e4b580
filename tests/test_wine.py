"""The wine task: data, network, losses, questions. The data are `wine_data`'s."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from scipy.stats import binom
from torch import nn
from typer.testing import CliRunner

from evobench import runner, wine, wine_report
from evobench.cli import app
from evobench.configs import read_config
from evobench.evograd import FAMILIES
from evobench.experiment import make_experiment
from evobench.problems import FUNCTIONS, make_problem
from evobench.runner import batches, run_experiment
from evobench.store import Store, load_results
from evobench.tables import markdown
from evobench.tasks import Task, execute
from evobench.verify import verify

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("wine_data")


def some_networks(*shape: int, scale: float = 0.5) -> torch.Tensor:
    return scale * torch.randn(*shape, wine.DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def as_module(parameters: torch.Tensor) -> nn.Sequential:
    """The paper's network, by torch's own layers."""
    network = nn.Sequential(nn.Linear(11, 128), nn.Tanh(), nn.Linear(128, 1)).double()
    nn.utils.vector_to_parameters(parameters, network.parameters())
    return network


# The data


def test_the_network_has_the_papers_parameters():
    assert wine.DIM == 1665 == sum(part.numel() for part in as_module(some_networks()).parameters())


def test_the_noise_is_log_normal_and_decided_by_its_seed():
    draws = wine.noise(0, 200_000)
    assert draws.mean() == pytest.approx(math.exp(0.5), rel=0.02)
    assert np.median(draws) == pytest.approx(1, rel=0.02)
    assert np.array_equal(wine.noise(3, 50), wine.noise(3, 50))
    assert not np.array_equal(wine.noise(3, 50), wine.noise(4, 50))


def test_var_y_over_noise_draws():
    """The noise adds its own variance, (e − 1)·e = 4.67, which a single draw misses by much."""
    quality = wine.read(wine.data_file())[:, -1]
    found = wine.variances(100)
    assert found[5] == pytest.approx(wine.references(wine.Settings(noise_seed=5)).constant)
    assert found.mean() == pytest.approx(quality.var() + (math.e - 1) * math.e, rel=0.1)
    assert found.std() > 0.3


def test_the_split_is_stratified_seeded_and_standardised_by_what_trains():
    quality = wine.read(wine.data_file())[:, -1]
    held_out = wine.stratified(quality, 1)
    for value in np.unique(quality):
        assert held_out[quality == value].sum() == round(0.2 * (quality == value).sum())
    assert np.array_equal(held_out, wine.stratified(quality, 1))
    assert not np.array_equal(held_out, wine.stratified(quality, 2))
    train, test = wine.rows(wine.Settings(standardise=True, split=1))
    np.testing.assert_allclose(train.x.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(train.x.std(0), 1)
    assert abs(test.x.mean(0)).max() > 1e-3
    raw_train, raw_test = wine.rows(wine.Settings(split=1))
    np.testing.assert_array_equal(train.y, raw_train.y)
    np.testing.assert_allclose(test.x, (raw_test.x - raw_train.x.mean(0)) / raw_train.x.std(0))
    everything, none = wine.rows(wine.Settings())
    assert none is None
    assert sorted(everything.y) == sorted([*train.y, *test.y])


def test_references_are_those_of_statsmodels():
    settings = wine.Settings(standardise=True, split=0)
    train, test = wine.rows(settings)
    found = wine.references(settings)
    model = sm.OLS(train.y, sm.add_constant(train.x)).fit()
    assert found.ols == pytest.approx(model.ssr / len(train.y))
    assert found.constant == pytest.approx(model.centered_tss / len(train.y))
    held_out = test.y - model.predict(sm.add_constant(test.x, has_constant="add"))
    assert found.test_ols == pytest.approx(np.mean(held_out**2))
    assert found.test_constant == pytest.approx(np.mean((test.y - train.y.mean()) ** 2))
    assert all(map(math.isnan, wine.references(wine.Settings())[2:]))


# The losses


def test_the_loss_and_its_gradient_are_torchs():
    x, targets = torch.tensor(wine.rows(wine.Settings())[0].x), torch.tensor(wine.rows(wine.Settings())[0].y)
    problem = make_problem("wine", wine.DIM)
    for scale in (0.5, 0.01):
        parameters = some_networks(scale=scale)
        network = as_module(parameters)
        expected = nn.functional.mse_loss(network(x)[:, 0], targets)
        expected.backward()
        leaf = parameters.clone().requires_grad_()
        value = problem(leaf)
        value.backward()
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
        found = nn.utils.parameters_to_vector(part.grad for part in network.parameters())
        torch.testing.assert_close(leaf.grad, found, rtol=1e-7, atol=1e-9)


def test_a_saturated_unit_has_no_gradient_on_either_side():
    """Adam and Lion step by signs: a gradient of 1e-30 would move a weight as much as one of 1."""
    hidden = wine.HIDDEN * wine.INPUTS
    parameters = torch.ones(wine.DIM, dtype=torch.float64)
    parameters[:hidden] = 0
    parameters[hidden : hidden + wine.HIDDEN] = torch.linspace(-30, 30, wine.HIDDEN)
    leaf = parameters.requires_grad_()
    make_problem("wine", wine.DIM)(leaf).backward()
    size, grad = (part[hidden : hidden + wine.HIDDEN] for part in (parameters.detach().abs(), leaf.grad))
    assert (grad[size > 20] == 0).all()
    assert (grad[size < 15] != 0).all()


@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")  # which the authors must have seen
def test_the_broadcast_loss_is_the_real_broadcast():
    train, _ = wine.rows(wine.Settings())
    problem = make_problem("wine_broadcast", wine.DIM)
    for scale in (0.5, 0.01):
        parameters = some_networks(scale=scale)
        leaf, network = parameters.clone().requires_grad_(), as_module(parameters)
        expected = nn.MSELoss()(network(torch.tensor(train.x)), torch.tensor(train.y))  # [n, 1] against [n]
        expected.backward()
        value = problem(leaf)
        value.backward()
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
        found = nn.utils.parameters_to_vector(part.grad for part in network.parameters())
        torch.testing.assert_close(leaf.grad, found, rtol=1e-7, atol=1e-9)


def test_the_least_broadcast_loss_is_var_y_and_ignores_the_wine():
    problem = make_problem("wine_broadcast", wine.DIM)
    assert problem.f_opt == pytest.approx(np.var(wine.rows(wine.Settings())[0].y))
    assert problem(problem.x_opt) == pytest.approx(problem.f_opt)
    assert (problem(some_networks(5, scale=0.1)) > problem.f_opt).all()
    assert ((problem.lower < problem.x_opt) & (problem.x_opt < problem.upper)).all()
    assert make_problem("wine", wine.DIM).f_opt is None


@pytest.mark.parametrize("fn", ["wine", "wine_broadcast"])
def test_any_batch_gives_what_each_network_gives_alone(fn):
    problem = make_problem(fn, wine.DIM)
    x = some_networks(3, 3)
    values = problem(x)
    assert values.shape == (3, 3)
    alone = torch.stack([problem(row) for row in x.flatten(0, 1)]).view(3, 3)
    torch.testing.assert_close(values, alone, rtol=1e-12, atol=0)
    torch.testing.assert_close(values, torch.from_numpy(problem(x.numpy())), rtol=1e-12, atol=0)


def test_no_matrix_of_all_pairs_is_built():
    """Not even a hundred networks at once hold more than a chunk's hidden layers."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            largest = max(largest, out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    loss = wine.broadcast_loss(wine.Settings())
    with Watch():
        loss(some_networks(20))
    assert largest == wine.CHUNK["cpu"] * wine.HIDDEN * len(loss.targets)


# A problem like any other


def test_settings_of_the_problem_are_in_its_cells_alone():
    content = {"algo": "ga_diff,ga", "fn": ["wine"], "pop": 20, "budget": 100}
    cells = make_experiment(content).cells()
    assert {cell.dim for cell in cells} == {wine.DIM}
    assert cells[0].problem == {"noise_seed": 0, "standardise": False, "split": None}
    changes = [{"noise_seed": 1}, {"standardise": True}, {"split": 0}, {"split": 1}]
    changed = [make_experiment({**content, "settings": {"wine": change}}).cells() for change in changes]
    hashes = {cell.settings_hash for group in [cells, *changed] for cell in group}
    assert len(hashes) == 2 * 5
    assert make_experiment({"algo": "ga", "fn": "ackley", "dim": 2}).cells()[0].problem == {}


def test_the_hash_of_a_stored_tensor_cell_never_changes():
    """Found in results/figure1: hours of rows are found by these."""
    expected = {"cmaes_diff": "205c1861c3e6", "ga_released": "7d65a27a2014", "pso_diff": "ae879aa3f6dc"}
    content = {"algo": list(expected), "fn": "ackley", "dim": 30, "device": "cpu"}
    assert {cell.algo: cell.settings_hash for cell in make_experiment(content).cells()} == expected


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"dim": 30}, ["dimension 30 does not fit wine", "1665"]),
        ({"settings": {"wine": {"noise": 1}}}, ["unknown setting 'noise' of wine", "noise_seed, standardise, split"]),
        ({"settings": {"wine": {"noise_seed": -1}}}, ["-1", "wine.noise_seed"]),
        ({"settings": {"wine_broadcast": {}}}, ["'wine_broadcast', which is not run"]),
        ({"fn": "wine,ackley"}, ["'dim' is missing"]),
    ],
)
def test_what_does_not_fit_is_refused(refused, changes, texts):
    with refused(*texts):
        make_experiment({"algo": "pso_diff", "fn": "wine", "budget": 100, **changes}).cells()


def test_where_there_are_no_data_a_sentence_says_where_to_put_them(tmp_path, monkeypatch, refused):
    monkeypatch.setenv(wine.VARIABLE, str(tmp_path / "none.csv"))
    with refused("none.csv", "No such file", "--data", wine.VARIABLE, wine.URL):
        make_problem("wine", wine.DIM)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("a;b\n1;2\n")
    monkeypatch.setenv(wine.VARIABLE, str(wrong))
    with refused("wrong.csv", "sha256", wine.SHA256, "--data"):
        make_problem("wine", wine.DIM)


@pytest.mark.parametrize(("error", "says"), [(OSError("no route"), "OSError"), (ValueError("hash"), "checksum")])
def test_without_a_network_a_sentence_says_where_to_put_them(tmp_path, monkeypatch, refused, error, says):
    def retrieve(url, known_hash, fname, path):
        assert (url, known_hash) == (wine.URL, f"sha256:{wine.SHA256}")
        raise error

    monkeypatch.delenv(wine.VARIABLE)
    monkeypatch.setattr("pooch.retrieve", retrieve)
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / name)
    with refused(says, str(tmp_path / "evobench" / "winequality-red.csv"), "--data"):
        make_problem("wine", wine.DIM)


@pytest.fixture
def served(tmp_path, monkeypatch) -> Iterator[Path]:
    """A file of this machine that the download's URL names, and an empty cache; nothing else names the data."""
    handler = partial(QuietHandler, directory=str(tmp_path))
    monkeypatch.delenv(wine.VARIABLE)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setattr(wine, "URL", f"http://127.0.0.1:{server.server_port}/winequality-red.csv")
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield tmp_path / "winequality-red.csv"
        server.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_a_download_is_kept(served, wine_data):
    """pooch itself, from a server of this machine: once, then the cache has it."""
    served.write_bytes(wine_data.read_bytes())
    path = wine.data_file()
    assert path.read_bytes() == wine_data.read_bytes()
    served.unlink()
    assert wine.data_file() == path
    assert len(wine.read(wine.data_file())) == len(wine_data.read_text().splitlines()) - 1


def test_a_download_with_another_checksum_is_refused(served, refused):
    served.write_text("a;b\n1;2\n")
    with refused("its checksum is wrong", wine.URL, "--data", wine.VARIABLE):
        wine.data_file()
    assert not list((served.parent / "cache").rglob("*.csv"))


@pytest.mark.parametrize("algo", read_config(ROOT / "configs" / "wine.yaml")["algo"])
def test_every_algorithm_trains_the_network(algo):
    content = {"algo": algo, "fn": "wine", "seeds": 1, "pop": 6, "budget": 12, "protocol": "paper", "device": "cpu"}
    (cell,) = make_experiment(content).cells()
    (record,) = execute(Task(cell, (0,)), lambda share, best: None)
    assert 0 < record.f_evals <= 12
    assert record.best_f == pytest.approx(float(make_problem("wine", wine.DIM)(record.best_x)), rel=1e-9)


def test_a_batch_of_cmaes_fits_into_memory():
    (cell,) = make_experiment({"algo": "cmaes_diff", "fn": "wine", "pop": 30, "budget": 3000}).cells()
    tasks = batches(cell, range(30))
    assert sorted(seed for task in tasks for seed in task.seeds) == list(range(30))
    of_one = 4 * FAMILIES["cmaes"].peak(30, wine.DIM)
    assert 1 < max(len(task.seeds) for task in tasks) * of_one / 2**30 <= runner.MEMORY / 2 / 2**30
    assert runner.MEMORY < 5.5 * 2**30, "two at a time, and half a GiB for what is not tensors"


# The questions


SMALL = {"budget": 36, "pop": 10, "seeds": 7}


def small(algos: str = "pso_diff,adam,lbfgs,ga") -> dict:
    """The shipped experiment, but for its size."""
    content = read_config(ROOT / "configs" / "wine.yaml") | SMALL
    names = algos.split(",")
    kept = [
        {**other, "algo": [name for name in _names(other.get("algo", names)) if name in names]}
        for other in content["also"]
    ]
    also = [other for other in kept if other["algo"]]
    settings = {name: value for name, value in content["settings"].items() if name in names}
    return {**content, "algo": names, "settings": settings, "also": also, "device": "cpu"}


def _names(value) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.fixture(scope="module")
def results(tmp_path_factory, wine_data) -> Path:
    directory = tmp_path_factory.mktemp("wine")
    summary = run_experiment(make_experiment(small()), directory, jobs=1)
    assert not summary.failures
    return directory


def test_another_noise_draw_is_one_of_all_cells():
    content = read_config(ROOT / "configs" / "wine.yaml")
    given = {name: {"noise_seed": 3} for name in ("wine", "wine_broadcast")}
    cells = make_experiment({**content, "settings": {**content["settings"], **given}}).cells()
    assert {cell.problem["noise_seed"] for cell in cells} == {3}
    assert {cell.problem["standardise"] for cell in cells} == {False, True}
    assert len(cells) == len(make_experiment(content).cells())


def test_what_paid_nothing_for_gradients_is_no_answer_at_equal_cost(results):
    runs = load_results(results)
    standardised = runs["settings"].str.contains('"standardise": true')
    for changed in ({"gradient_cost": 0.0}, {"init": "uniform"}):
        other = runs.copy()
        other.loc[standardised & (runs["algo"] == "pso_diff"), list(changed)] = list(changed.values())
        answers = wine_report.gather(other).groupby("algo")["question"].unique()
        assert set(answers["pso_diff"]) == {1, 2}
        assert set(answers["adam"]) == {1, 2, 3, 4}


def test_what_takes_no_gradient_answers_at_equal_cost_without_a_price(results):
    runs = load_results(results)
    for library in ("pycma", "scipy_de"):
        other = runs.assign(algo=runs["algo"].replace("ga", library))
        assert set(wine_report.gather(other).groupby("algo")["question"].unique()[library]) == {1, 2, 3, 4}


def test_other_budgets_and_populations_are_other_experiments(results, refused):
    runs = load_results(results)
    for column, texts in (("budget", ("budgets", "36, 99")), ("pop_size", ("populations", "10, 99"))):
        other = runs.copy()
        other.loc[other["algo"] == "ga", column] = 99
        with refused("several", *texts, "--out"):
            wine_report.gather(other)


def test_the_shipped_experiment_asks_the_four_questions():
    experiment = make_experiment(read_config(ROOT / "configs" / "wine.yaml"))
    cells = experiment.cells()
    assert {cell.algo for cell in cells} == set(experiment.algo)
    assert len(experiment.algo) == 14
    assert {(cell.budget, cell.dim) for cell in cells} == {(3000, 1665)}
    assert {cell.pop_size for cell in cells} == {1, 30}
    for algo in experiment.algo:
        mine = [cell for cell in cells if cell.algo == algo]
        plain = {(cell.fn, cell.init) for cell in mine if not cell.problem["standardise"]}
        assert plain >= {("wine", "uniform"), ("wine", "centre")}
        assert len(plain) == 3, "and the broadcast, from its own start"
        fair = [cell for cell in mine if cell.problem["standardise"]]
        assert {(cell.init, cell.problem["split"]) for cell in fair} == {("centre", 0)}
        assert {cell.gradient_cost for cell in fair} == {0 if cell.backend == "pymoo" else 5 for cell in mine}
        grid = sorted(cell.settings["lr"] for cell in fair) if algo in ("adam", "lion") else [0]
        assert grid in ([0.0001, 0.001, 0.01, 0.1, 1], [0])
    (paper,) = [cell for cell in cells if (cell.algo, cell.fn) == ("adam", "wine_broadcast")]
    assert (paper.init, paper.settings["lr"], paper.settings["patience"]) == ("uniform", 0.001, None)


def test_rows_record_the_task_and_verify(results):
    runs = load_results(results)
    for text in runs["settings"]:
        assert json.loads(text).keys() >= {"noise_seed", "standardise", "split"}
    assert (runs.loc[runs["algo"] == "adam", "f_evals"].isin([36, 6])).all()
    report = verify(Store(results))
    assert report.findings == []
    assert report.runs == len(runs) == 7 * (4 * 4 + 4)


def test_every_question_is_answered_by_every_algorithm(results):
    runs = load_results(results)
    gathered = wine_report.gather(runs)
    counts = gathered.groupby(["question", "series", "algo"]).size()
    assert set(counts) == {7}
    assert len(counts) == 4 * (2 + 2 + 1 + 2)
    assert set(gathered["question"]) == set(wine_report.QUESTIONS)
    train, test = wine.rows(wine.Settings(standardise=True, split=0))
    for algo in ("adam", "ga"):
        rows = gathered[(gathered["question"] == 4) & (gathered["algo"] == algo) & (gathered["seed"] == 3)]
        rate = rows["rate"].iloc[0]
        run = next(
            run
            for run in runs[(runs["algo"] == algo) & (runs["seed"] == 3)].to_dict("records")
            if json.loads(run["settings"])["standardise"]
            and (math.isnan(rate) or json.loads(run["settings"])["lr"] == rate)
        )
        network = as_module(torch.tensor(run["best_x"]))
        for part, series in ((train, "training rows"), (test, "rows held out")):
            loss = nn.functional.mse_loss(network(torch.tensor(part.x))[:, 0], torch.tensor(part.y))
            assert rows.loc[rows["series"] == series, "loss"].item() == pytest.approx(loss.item(), rel=1e-9)


def test_adam_has_the_rate_with_the_lowest_median(results):
    runs = load_results(results)
    adam = runs[(runs["algo"] == "adam") & runs["settings"].str.contains('"standardise": true')]
    rates = adam["settings"].map(lambda text: json.loads(text)["lr"])
    medians = adam.groupby(rates)["best_f"].median()
    assert len(medians) == 5
    gathered = wine_report.gather(runs)
    fair = gathered[(gathered["algo"] == "adam") & (gathered["question"] >= 3)]
    assert set(fair["rate"]) == {medians.idxmin()}
    assert fair.loc[fair["question"] == 3, "loss"].median() == pytest.approx(medians.min())
    assert gathered.loc[gathered["question"] < 3, "rate"].isna().all()


def test_the_interval_of_a_median_is_by_order_statistics(results):
    """With seven runs it is the whole range, for P(all above or all below) = 2·2^-7 < 5%."""
    assert 2 * binom.pmf(0, 7, 0.5) < 0.05 < 2 * binom.cdf(1, 7, 0.5)
    summary = wine_report.summarise(wine_report.gather(load_results(results)))
    assert (summary["low"] == summary["best"]).all()
    assert (summary["high"] == summary["worst"]).all()
    few = load_results(results).query("seed < 5")
    assert wine_report.summarise(wine_report.gather(few))["low"].isna().all()


def test_the_table_names_what_needs_no_search_and_the_spread_of_the_noise(results):
    text = "\n".join(map(markdown, wine_report.blocks(load_results(results))))
    known = wine.references(wine.Settings())
    for value in (known.constant, known.ols, np.median(wine.variances())):
        assert f"{value:.4g}" in text
    assert re.search(r"`adam, lr [\d.]+`", text)
    assert text.count("| `adam") == 7
    assert text.count("| adam | `") == 5
    assert max(map(len, text.splitlines())) < 400


def test_the_figure_has_four_panels_and_every_run(results):
    runs = load_results(results)
    figure = wine_report.figure(runs)
    assert [ax.get_title()[0] for ax in figure.axes] == ["1", "2", "3", "4"]
    gathered = wine_report.gather(runs)
    for question, ax in zip((1, 2, 3, 4), figure.axes, strict=True):
        dots = sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() == ".")
        assert dots == (gathered["question"] == question).sum()
    drawn = {round(line.get_xdata()[0], 9) for line in figure.axes[0].lines if line.get_linestyle() == "--"}
    assert round(wine.references(wine.Settings()).constant, 9) in drawn


def test_what_cannot_be_put_side_by_side_is_refused(results, refused):
    runs = load_results(results)
    with refused("no runs of wine"):
        wine_report.gather(runs.assign(fn="ackley"))
    other = runs.assign(
        settings=runs["settings"].str.replace('"noise_seed": 0', '"noise_seed": 1'), settings_hash="0" * 12
    )
    with refused("several noise seeds (0, 1)", "--out"):
        wine_report.gather(pd.concat([runs, other[other["algo"] == "ga"]]))
    again = runs[(runs["algo"] == "ga") & (runs["fn"] == "wine_broadcast")].assign(settings_hash="1" * 12)
    with refused("several settings of ga"):
        wine_report.gather(pd.concat([runs, again]))


def test_the_command_runs_the_config_and_shows_both(tmp_path, monkeypatch, wine_data):
    import yaml

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(wine.VARIABLE)
    (tmp_path / "configs").mkdir()
    text = yaml.safe_dump({key: value for key, value in small("adam,pso_diff").items() if key != "name"})
    (tmp_path / "configs" / "wine.yaml").write_text(text)
    arguments = ["wine", "--data", str(wine_data), "--seeds", "2", "--jobs", "1", "--format", "markdown"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(wine.VARIABLE, "")  # restored, since the command sets it
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "| 1. the paper's setting | `pso_diff` |" in result.stdout
    for ending in ("png", "pdf"):
        assert (tmp_path / "results" / "wine" / "figures" / f"wine.{ending}").stat().st_size > 10_000
    assert len(load_results(tmp_path / "results" / "wine")) == 2 * (4 + 4 + 4)
    assert not list(tmp_path.rglob("*.csv"))


def test_functions_made_from_data_are_listed_with_their_settings():
    result = CliRunner().invoke(app, ["list"])
    assert result.exit_code == 0
    for word in ("wine_broadcast", "noise_seed", "standardise", "split", "1665", "adam", "lbfgs"):
        assert word in result.stdout
    assert FUNCTIONS["wine"].dim == 1665
