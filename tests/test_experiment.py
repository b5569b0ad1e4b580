"""What to run: seeds, budgets, protocols, the settings hash, and every kind of bad input."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from conftest import assert_one_sentence
from hypothesis import given
from hypothesis import strategies as st

from evobench.algorithms import ALGORITHMS, BASELINES
from evobench.baselines import pymoo as pymoo_baselines
from evobench.configs import read_config
from evobench.experiment import (
    PAPER_ALGORITHMS,
    PROTOCOLS,
    Cell,
    Experiment,
    default_budget,
    make_experiment,
    parse_seeds,
)
from evobench.problems import FUNCTIONS, PAPER_FUNCTIONS

MINIMAL = {"algo": "ga", "fn": "ackley", "dim": 3}


def cell(algo: str = "ga", **changes) -> Cell:
    (only,) = make_experiment({**MINIMAL, "algo": algo, "device": "cpu", **changes}).cells()
    return only


# Seeds


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("30", range(30)),
        ("1", [0]),
        ("0-29", range(30)),
        ("5-5", [5]),
        ("1,4,7", [1, 4, 7]),
        ("7,1,4", [1, 4, 7]),
        ("3,3,3", [3]),
        ("7,", [7]),
        ("0-2,10,5-6", [0, 1, 2, 5, 6, 10]),
        ("999999999,", [999999999]),
    ],
)
def test_seeds(text, seeds):
    assert parse_seeds(text) == tuple(seeds)


@given(st.sets(st.integers(0, 10**9 - 1), min_size=1, max_size=30))
def test_seeds_as_a_list_round_trip(seeds):
    assert parse_seeds(",".join(map(str, seeds)) + ",") == tuple(sorted(seeds))
    assert make_experiment({**MINIMAL, "seeds": [*seeds, min(seeds)]}).seeds == tuple(sorted(seeds))


@given(st.integers(0, 10**6), st.integers(0, 300))
def test_seeds_as_a_range_round_trip(first, more):
    assert parse_seeds(f"{first}-{first + more}") == tuple(range(first, first + more + 1))


@given(st.integers(1, 300))
def test_seeds_as_a_count(count):
    expected = tuple(range(count))
    assert parse_seeds(str(count)) == expected
    assert make_experiment({**MINIMAL, "seeds": count}).seeds == expected
    assert make_experiment({**MINIMAL, "seeds": str(count)}).seeds == expected
    assert make_experiment({**MINIMAL, "seeds": expected}).seeds == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "5-2",
        "1,5-2",
        "-1",
        "1-",
        "a",
        "1.5",
        "1;2",
        "1,,2",
        ",",
        " 3",
        "1-2-3",
        "+3",
        "1e3",
        "x" * 50,
        "9" * 10,
        "0-9999999999",
        "999999999",
        "0-999999999",
        "0-999999,5000000-5999999",
    ],
)
def test_bad_seeds(text, refused):
    with refused("bad seeds", text[:8], "a count (30), a range (0-29) or a list (1,4,7)"):
        parse_seeds(text)
    with refused("bad seeds"):
        make_experiment({**MINIMAL, "seeds": text})


@pytest.mark.parametrize(
    "value",
    [True, False, 0, -1, 1.5, 30.0, [], [True], [1.5], [-1], [[1]], (-1,), (), {-1}, {1: 2}, None, "5-2", [None], b"3"],
    ids=repr,
)
def test_bad_seeds_in_a_config(value, refused):
    with refused("seeds"):
        make_experiment({**MINIMAL, "seeds": value})


def test_seeds_of_any_collection_are_increasing_and_without_repeats():
    for value in ([3, 1, 3], (3, 1, 3), {3, 1}, ["3", "1"], [1, "3-3"], range(1, 4, 2)):
        assert make_experiment({**MINIMAL, "seeds": value}).seeds == (1, 3)


@given(st.text(max_size=20))
def test_any_text_as_seeds(text):
    try:
        seeds = parse_seeds(text)
    except ValueError as error:
        assert_one_sentence(str(error))
    else:
        assert seeds
        assert list(seeds) == sorted(set(seeds))


# Budgets and protocols


def test_default_budgets():
    assert [default_budget(dim) for dim in (30, 50, 500, 2, 100)] == [150_000, 250_000, 500_000, 10_000, 500_000]
    assert cell(dim=50).budget == 250_000
    assert cell(dim=50, budget=777).budget == 777


def test_all_is_the_paper():
    experiment = make_experiment({"algo": "all", "fn": "all", "dim": "all"})
    assert experiment.algo == PAPER_ALGORITHMS
    assert experiment.fn == PAPER_FUNCTIONS
    assert experiment.dim == (30, 50)
    assert experiment.seeds == tuple(range(30))
    assert len(experiment.cells()) == 8 * 4 * 2
    assert make_experiment({**MINIMAL, "dim": ["all", 10, "30"]}).dim == (30, 50, 10)
    assert make_experiment({**MINIMAL, "algo": ["pso", "all", "pso"]}).algo[0] == "pso"


def test_repeated_names_run_once():
    experiment = make_experiment({"algo": "ga, ga,de,", "fn": ["ackley", "ackley"], "dim": [3, "3", 3]})
    assert (experiment.algo, experiment.fn, experiment.dim) == (("ga", "de"), ("ackley",), (3,))


def test_tensor_programs_come_before_pymoo():
    cells = make_experiment({"algo": "ga,ga_diff,de,de_plain", "fn": "ackley,griewank", "dim": "3,2"}).cells()
    assert [one.backend for one in cells] == ["evograd"] * 8 + ["pymoo"] * 8
    assert len({one.key for one in cells}) == 16


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_papers_protocol(name):
    one = cell(name)
    tensors = ALGORITHMS[name].batched
    assert one.init == ("centre" if name.startswith("cmaes") and tensors else "uniform")
    assert one.shift == 0
    assert one.gradient_cost == 0
    assert one.dtype == ("float32" if tensors else "float64")
    assert one.device == "cpu"
    assert one.pop_size == ALGORITHMS[name].population(None, 3)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_fair_protocol(name):
    one = cell(name, protocol="fair")
    assert one.init == "uniform"
    assert one.shift == 60
    assert one.gradient_cost == (5 if ALGORITHMS[name].takes_gradients else 0)
    assert one.dtype == "float64"


@pytest.mark.parametrize("name", ["cmaes", "cmaes_diff", "ga", "ga_diff"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_parts_of_a_protocol_can_be_set_one_by_one(name, protocol):
    tensors = ALGORITHMS[name].backend == "evograd"
    parts = {"init": "centre", "shift": 7, "gradient_cost": 2, "dtype": "float64"}
    for key, value in parts.items():
        one = cell(name, protocol=protocol, **{key: value})
        rest = cell(name, protocol=protocol)
        if tensors or key in ("init", "shift"):
            assert getattr(one, key) == value
        else:
            assert getattr(one, key) == getattr(rest, key), "a baseline has no gradients and computes in float64"
        for other in set(parts) - {key}:
            assert getattr(one, other) == getattr(rest, other)
    assert cell(name, protocol="fair", shift=0).shift == 0, "0 is a value, not an absence"
    assert cell(name, protocol="fair", gradient_cost=0).gradient_cost == 0


def test_the_fair_shift_is_a_share_of_the_functions_own_box(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "narrow_box.py").write_text("def f(x): return x.sum(-1)\nf.lower, f.upper = 0, 10\n")
    assert cell(fn="narrow_box:f", protocol="fair").shift == pytest.approx(3)
    with pytest.raises(ValueError, match="shift 6 is too large: half the box of narrow_box:f is 5"):
        cell(fn="narrow_box:f", shift=6)
    del sys.modules["narrow_box"]


# The settings hash


VERSIONS = {"pymoo": "0.6.2", "cma": "4.5.0"}

CHANGES = {
    "algo": "de",
    "fn": "griewank",
    "dim": 4,
    "pop_size": 50,
    "budget": 999,
    "init": "centre",
    "shift": 1.0,
    "gradient_cost": 1.0,
    "dtype": "float32",
    "device": "cuda",
    "compile": True,
    "settings": {"eta_c": 14.0, "crossover_rate": 0.9, "eta_m": 20.0},
    "problem": {"noise_seed": 1},
}


@pytest.mark.parametrize("field", CHANGES)
def test_the_hash_changes_with_everything_that_can_change_a_result(field):
    one = cell()
    other = one.model_copy(update={field: CHANGES[field]})
    assert getattr(one, field) != CHANGES[field]
    assert other.settings_hash != one.settings_hash


def test_every_field_of_a_cell_is_in_the_hash_or_known_not_to_matter():
    assert set(Cell.model_fields) - set(CHANGES) == {"protocol", "backend", "versions"}  # versions: test_peers.py
    one = cell()
    assert one.model_copy(update={"protocol": "fair"}).settings_hash == one.settings_hash


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_setting_of_an_algorithm_is_in_the_hash(name):
    plain = cell(name)
    for key, value in plain.settings.items():
        changed = plain.model_copy(update={"settings": {**plain.settings, key: f"not {value}"}})
        assert changed.settings_hash != plain.settings_hash, key


def test_only_baselines_depend_on_the_versions_of_pymoo_and_cma(monkeypatch):
    before = {name: cell(name).settings_hash for name in ("ga", "cmaes", "ga_diff", "cmaes_plain")}
    for package in VERSIONS:
        with monkeypatch.context() as patch:
            patch.setitem(pymoo_baselines.VERSIONS, package, "9.9")
            after = {name: cell(name).settings_hash for name in before}
        assert {name for name in before if before[name] != after[name]} == {"ga", "cmaes"}


def test_the_hash_is_blind_to_names_seeds_and_protocol_names():
    """The parts of a protocol count, however they were asked for."""
    fair_by_hand = {"init": "uniform", "shift": 60, "gradient_cost": 5, "dtype": "float64"}
    for name in ("ga", "ga_diff", "cmaes", "cmaes_diff"):
        assert cell(name, **fair_by_hand).settings_hash == cell(name, protocol="fair").settings_hash
        assert cell(name, name="other", seeds="5").settings_hash == cell(name).settings_hash
        assert cell(name, budget=15_000, pop=100).settings_hash == cell(name).settings_hash
        assert cell(name, settings={name: {}}).settings_hash == cell(name).settings_hash


def test_how_a_number_is_spelled_does_not_matter():
    spellings = (15, 15.0, "15", "15.0", "1.5e1")
    hashes = {cell(settings={"ga": {"eta_c": value}}).settings_hash for value in spellings}
    assert hashes == {cell().settings_hash}
    hashes = {cell("ga_diff", settings={"ga_diff": {"lr": value}}).settings_hash for value in (1, 1.0, "1")}
    assert len(hashes) == 1
    assert len({cell(shift=value).settings_hash for value in (5, 5.0, "5", "5.0")}) == 1
    assert len({cell(shift=value).settings_hash for value in (0, 0.0, "0", None)}) == 1
    assert len({cell("ga_diff", gradient_cost=value).settings_hash for value in (5, 5.0, "5")}) == 1
    assert len({cell(budget=value).settings_hash for value in (500, 500.0, "500")}) == 1
    assert (
        len(
            {cell(settings={"ga": dict(reversed(items))}).settings_hash for items in [[("eta_c", 3), ("eta_m", 4)]] * 2}
        )
        == 1
    )


def test_distinct_settings_have_distinct_hashes():
    variants = [{}, {"dim": 4}, {"pop": 50}, {"budget": 999}, {"shift": 1}, {"init": "centre"}, {"fn": "griewank"}]
    hashes = [cell(name, **change).settings_hash for name in BASELINES for change in variants]
    assert len(set(hashes)) == len(hashes)


def test_the_hash_of_a_stored_baseline_never_changes(monkeypatch):
    """Hours of committed rows are found by these: a new value means that they are computed anew."""
    monkeypatch.setattr(pymoo_baselines, "VERSIONS", VERSIONS)
    expected = {
        "ga": "bff2623cc5a9",
        "de": "505ce61eee3c",
        "pso": "ace0d67d2bb9",
        "cmaes": "12202146aa10",
        "cmaes_tpa": "8be81b4c7bac",
    }
    assert {name: cell(name, dim=30).settings_hash for name in expected} == expected


# Bad input


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"algo": "nope"}, ["unknown algorithm 'nope'", *ALGORITHMS]),
        ({"algo": "ga,\x1b[31m"}, ["unknown algorithm"]),
        ({"algo": ["a\nb"]}, ["unknown algorithm"]),
        ({"algo": []}, ["no algorithm given"]),
        ({"algo": ","}, ["no algorithm given"]),
        ({"algo": [["ga"]]}, ["algo"]),
        ({"algo": None}, ["algo"]),
        ({"algo": 3}, ["bad value 3", "algo"]),
        ({"algo": {"ga": 1}}, ["algo"]),
        ({"fn": "akley"}, ["unknown function 'akley'", *FUNCTIONS, "package.module:function"]),
        ({"fn": []}, ["no function given"]),
        ({"fn": False}, ["fn"]),
        ({"dim": []}, ["no dimension given"]),
        ({"dim": 0}, ["bad dimension 0", "from 1"]),
        ({"dim": "-3"}, ["bad dimension -3"]),
        ({"dim": "3.5"}, ["3.5", "dim"]),
        ({"dim": "x"}, ["'x'", "dim"]),
        ({"dim": True}, ["True", "dim"]),
        ({"dim": 10**9}, ["dimension 1000000000"]),
        ({"dim": 10**30}, ["dimension"]),
        ({"dim": float("inf")}, ["dim"]),
        ({"budget": 0}, ["budget"]),
        ({"budget": -5}, ["-5", "budget"]),
        ({"budget": "many"}, ["'many'", "budget"]),
        ({"budget": True}, ["True", "budget"]),
        ({"budget": 10**30}, ["budget"]),
        ({"pop": 0}, ["0", "pop"]),
        ({"pop": True}, ["True", "pop"]),
        ({"pop": 10**12}, ["pop"]),
        ({"shift": -1}, ["-1", "shift"]),
        ({"shift": float("nan")}, ["nan", "shift"]),
        ({"shift": float("inf")}, ["inf", "shift"]),
        ({"shift": True}, ["True", "shift"]),
        ({"gradient_cost": -1}, ["-1", "gradient_cost"]),
        ({"protocol": "unfair"}, ["'unfair'", "'paper' or 'fair'"]),
        ({"init": "center"}, ["'center'", "'centre' or 'uniform'"]),
        ({"dtype": "float16"}, ["'float16'", "'float32' or 'float64'"]),
        ({"device": "tpu"}, ["'tpu'", "'auto', 'cpu', 'cuda' or 'mps'"]),
        ({"name": "../evil"}, ["bad name '../evil'"]),
        ({"name": "a" * 65}, ["bad name"]),
        ({"name": ""}, ["bad name"]),
        ({"name": ".hidden"}, ["bad name"]),
        ({"name": "a/b"}, ["bad name"]),
        ({"name": "a\n"}, ["bad name"]),
        ({"name": 3}, ["3", "name"]),
        ({"budgett": 5}, ["unknown key 'budgett'", "budget"]),
        ({"bud\nget": 5}, ["unknown key"]),
        ({3: 5}, ["3"]),
        ({"settings": []}, ["settings"]),
        ({"settings": {"ga": None}}, ["settings.ga"]),
        ({"settings": {"g\na": None}}, ["settings"]),
        ({"settings": {"ga": {"eta": 3}}}, ["unknown setting 'eta' of ga", "eta_c"]),
        ({"settings": {"ga": {"eta\n": 3}}}, ["unknown setting"]),
        ({"settings": {"ga": {"eta_c": "x\ny"}}}, ["ga.eta_c"]),
        ({"settings": {"ga": {"eta_c": -1}}}, ["-1", "ga.eta_c"]),
        ({"settings": {"ga": {"eta_c": float("nan")}}}, ["nan", "ga.eta_c"]),
        ({"settings": {"ga": {"eta_c": float("inf")}}}, ["inf", "ga.eta_c"]),
        ({"settings": {"ga": {"crossover_rate": 2}}}, ["2", "ga.crossover_rate"]),
        ({"settings": {"de": {}}}, ["'de'", "not run", "ga"]),
        ({"settings": {"gaa": {}}}, ["'gaa'"]),
    ],
    ids=lambda value: repr(value)[:60] if isinstance(value, dict) else "",
)
def test_bad_values_get_one_sentence(changes, says, refused):
    with refused(*says):
        make_experiment({**MINIMAL, **changes})


@pytest.mark.parametrize("missing", MINIMAL)
def test_missing_keys(missing, refused):
    with refused(f"'{missing}' is missing"):
        make_experiment({key: value for key, value in MINIMAL.items() if key != missing})


@pytest.mark.parametrize("content", [None, [], "ga", 3, [1, 2]])
def test_not_a_mapping(content, refused):
    with refused("mapping"):
        make_experiment(content)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"algo": "de", "pop": 3}, ["population 3 is too small", "de needs at least 4"]),
        ({"algo": "cmaes", "pop": 3}, ["population 3", "cmaes needs at least 4"]),
        ({"algo": "pso", "pop": 1}, ["population 1", "pso needs at least 2"]),
        ({"algo": "ga_diff", "pop": 1}, ["population 1", "ga_diff needs at least 2"]),
        ({"budget": 99}, ["budget 99", "population of 100"]),
        ({"shift": 100.5}, ["shift 100.5 is too large", "100"]),
        ({"fn": "rosenbrock", "dim": 1}, ["dimension 1", "rosenbrock", "at least 2"]),
        ({"fn": "no_such_module:f"}, ["no_such_module"]),
        ({"device": "mps"}, ["device 'mps'", "cpu"]),
    ],
    ids=repr,
)
def test_cells_that_cannot_be_run(changes, says, refused):
    experiment = make_experiment({**MINIMAL, **changes})
    with refused(*says):
        experiment.cells()


def test_a_device_that_is_not_there(monkeypatch, refused):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with refused("device 'cuda' is not there"):
        make_experiment({**MINIMAL, "device": "cuda"}).cells()
    assert cell("ga_diff", device="auto").device == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cell("ga_diff", device="auto").device == "cuda"
    assert cell("ga", device="auto").device == "cpu", "pymoo runs on the CPU, whatever is asked"


def test_an_experiment_cannot_be_changed():
    experiment = make_experiment(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        experiment.pop = 3


# Config files


@pytest.fixture
def config(tmp_path: Path):
    def write(text: str | bytes, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_config_file(config):
    content = read_config(config("algo: [ga, pso_diff]\nfn: all\ndim: 30,50\nseeds: 0-4\nsettings: {ga: {eta_c: 3}}"))
    assert content["name"] == "mine"
    experiment = make_experiment(content)
    assert experiment.seeds == (0, 1, 2, 3, 4)
    assert experiment.dim == (30, 50)
    assert read_config(config("name: given\nalgo: ga\nfn: ackley\ndim: 3"))["name"] == "given"


@pytest.mark.usefixtures("wine_data")
@pytest.mark.parametrize("name", sorted(path.name for path in Path(__file__).parent.parent.glob("configs/*.yaml")))
def test_shipped_configs_are_valid(name):
    experiment = make_experiment(read_config(Path(__file__).parent.parent / "configs" / name))
    assert experiment.cells()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n\n# only a comment\n",
        "- a\n- list",
        "just text",
        "3",
        "{1: 2}",
        "null: 3",
        "a: [1, 2",
        "a: b: c",
        "\ta: 3",
        "a: *unknown",
        "---\na: 1\n---\nb: 2",
        b"\xff\xfe\x00",
        b"\x00",
        b"a: \xc3\x28",
        "? [1, 2]\n: 3",
        "a: !!bool maybe",
        "a: !!int three",
        "a: !!int ''",
        "a: !!float x",
        "a: !!timestamp never",
        "a: 2026-99-99",
        "a: !unknown 3",
        "a: !!python/object/apply:os.system ['touch pwned']",
        "!!python/object/apply:os.system ['touch pwned']",
        "a: !!python/name:os.system",
        "a: !!python/module:antigravity",
        "a: !!python/object/new:os.system ['touch pwned']",
        "[" * 5000,
        "a: " + "{a: " * 5000,
        "<<: 3",
    ],
    ids=lambda text: repr(text)[:40],
)
def test_files_that_are_no_config(config, text, refused, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = config(text)
    with refused("mine.yaml"):
        read_config(path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.yaml"], "nothing was executed"


def test_files_that_are_not_there(tmp_path, refused):
    with refused("cannot read the config", "absent.yaml"):
        read_config(tmp_path / "absent.yaml")
    with refused("cannot read the config"):
        read_config(tmp_path)
    with refused("cannot read the config"):
        read_config(Path("nul\0byte.yaml"))
    with refused("cannot read the config"):
        read_config(Path("x" * 300))


@pytest.mark.parametrize(
    "text",
    [
        "{algo: ga, fn: ackley, dim: 1e3}",
        "{algo: no, fn: ackley, dim: 3}",
        "{algo: ga, fn: ackley, dim: 2026-01-01}",
        "{algo: ga, fn: ackley, dim: 3, seeds: 2026-01-01}",
        "{algo: ga, fn: ackley, dim: !!set {a, b}}",
        "{algo: ga, fn: ackley, dim: 3, seeds: !!set {-1}}",
        "{algo: ga, fn: ackley, dim: 3, seeds: !!omap [a: 1]}",
        "{algo: &a [*a], fn: ackley, dim: 3}",
        "{algo: ga, fn: ackley, dim: &a [*a]}",
        "{algo: ga, fn: ackley, dim: 3, seeds: &a [*a]}",
        "{algo: ga, fn: ackley, dim: 3, settings: &a {ga: *a}}",
        "{algo: ga, fn: ackley, dim: 3, settings: {ga: &a {eta_c: *a}}}",
        '{algo: "\\ud800", fn: ackley, dim: 3}',
        '{algo: ga, fn: "\\ud800", dim: 3}',
        '{algo: ga, fn: ackley, dim: "\\ud800"}',
        '{algo: ga, fn: ackley, dim: 3, name: "\\ud800"}',
        '{algo: ga, fn: ackley, dim: 3, "\\ud800": 4}',
        '{algo: ga, fn: ackley, dim: 3, seeds: "\\ud800"}',
        '{algo: ga, fn: ackley, dim: 3, settings: {"\\ud800": {}}}',
        '{algo: ga, fn: ackley, dim: 3, settings: {ga: {"\\ud800": 3}}}',
        '{algo: ga, fn: ackley, dim: 3, settings: {ga: {eta_c: "\\ud800"}}}',
        "{algo: ga, fn: ackley, dim: 3, seeds: " + "9" * 5000 + "}",
        "{algo: ga, fn: ackley, dim: " + "9" * 4000 + "}",
    ],
)
def test_strange_yaml(config, text, refused):
    with refused():
        make_experiment(read_config(config(text)))


@pytest.mark.parametrize("key", ["algo", "fn", "dim", "seeds", "budget", "name", "protocol", "settings", "shift", "?"])
def test_a_bomb_of_aliases(config, key, refused):
    """Nine levels of nine aliases: a gigabyte to whoever spells it out."""
    levels = "\n".join(f"  - &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 10))
    text = f"bomb:\n  - &l0 [x]\n{levels}\n"
    bomb = yaml.safe_load(text)["bomb"][-1]
    with refused(key if key != "?" else "unknown key"):
        make_experiment({**MINIMAL, key: bomb})
    with refused("settings"):
        make_experiment({**MINIMAL, "settings": {"ga": bomb}})
    with refused("ga.eta_c"):
        make_experiment({**MINIMAL, "settings": {"ga": {"eta_c": bomb}}})
    with refused("ga.eta_c"):
        make_experiment({**MINIMAL, "also": [{"settings": {"ga": {"eta_c": bomb}}}]})
    with refused(key if key != "?" else "unknown key"):
        make_experiment({**MINIMAL, "also": [{key: bomb}]})


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.dates(),
    st.characters(categories=["Cs", "Cc"]),
    st.sampled_from(["all", "ga", "ga_diff", "ackley", "1,2", "0-3", "auto", "math:pi", "", ",", "\n", "fair"]),
)
keys = st.one_of(st.sampled_from([*Experiment.model_fields, *BASELINES, "eta_c", "lr"]), scalars.filter(bool))
data = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)


def accept_or_refuse(content) -> None:
    try:
        experiment = make_experiment(content)
    except ValueError as error:
        assert_one_sentence(str(error))
        return
    assert experiment.seeds
    assert min(experiment.seeds) >= 0
    assert experiment.algo
    assert experiment.fn
    assert min(experiment.dim) >= 1


@given(data)
def test_any_data_is_accepted_or_refused_in_one_sentence(content):
    accept_or_refuse(content)


@given(st.sampled_from(sorted(Experiment.model_fields)), data)
def test_any_value_of_any_key(key, value):
    accept_or_refuse({**MINIMAL, key: value})


@given(st.sampled_from(["ga", "ga_diff", "cmaes", "cmaes_diff"]), keys, data)
def test_any_value_of_any_setting(algo, key, value):
    accept_or_refuse({**MINIMAL, "algo": algo, "settings": {algo: {key: value}}})
    for name in ALGORITHMS[algo].configure({}).model_dump():
        accept_or_refuse({**MINIMAL, "algo": algo, "settings": {algo: {name: value}}})


@given(data)
def test_any_yaml_is_accepted_or_refused_in_one_sentence(content):
    """Through the file, where text that YAML can write comes back as it was."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.yaml"
        path.write_text(yaml.dump(content, allow_unicode=True), encoding="utf-8", errors="replace")
        try:
            content = read_config(path)
        except ValueError as error:
            assert_one_sentence(str(error))
            return
    accept_or_refuse(content)


@given(st.text(max_size=60))
def test_any_text_as_a_config_file(text):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.yaml"
        path.write_bytes(text.encode("utf-8", "replace"))
        try:
            content = read_config(path)
        except ValueError as error:
            assert_one_sentence(str(error))
            return
    accept_or_refuse(content)


# Requests that could buy nothing, or not what they say


def test_a_budget_below_one_generation_is_refused(refused):
    """A generation of guarded CMA-ES is 100 candidates and up to two gradients."""
    content = {"algo": "cmaes_guarded", "fn": "sphere", "dim": 3, "protocol": "fair"}
    with refused("budget 109 is too small", "cmaes_guarded", "110"):
        make_experiment({**content, "budget": 109}).cells()
    assert make_experiment({**content, "budget": 110}).cells()
    assert make_experiment({**content, "algo": "cmaes_plain", "budget": 100}).cells()


def test_an_edited_function_is_another_function(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "edited_objective.py"
    hashes = []
    for exponent in (2, 4):
        module.write_text(f"def f(x):\n    return (x ** {exponent}).sum(-1)\n")
        hashes.append(make_experiment({"algo": "ga", "fn": "edited_objective:f", "dim": 3}).cells()[0].settings_hash)
    assert hashes[0] != hashes[1]


ALSO = {"algo": "cmaes_diff,cmaes", "fn": "michalewicz", "dim": 5, "seeds": 2}


def test_also_adds_products_that_differ_in_what_they_say():
    experiment = make_experiment({**ALSO, "also": [{"algo": "cmaes_plain", "init": "uniform"}, {"dim": [5, 6]}]})
    assert [(cell.algo, cell.dim, cell.init) for cell in experiment.cells()] == [
        ("cmaes_diff", 5, "centre"),
        ("cmaes_plain", 5, "uniform"),
        ("cmaes_diff", 6, "centre"),
        ("cmaes", 5, "uniform"),
        ("cmaes", 6, "uniform"),
    ]


def test_settings_go_to_the_products_that_have_the_algorithm():
    settings = {"cmaes_diff": {"lr": 0.5}}
    experiment = make_experiment({**ALSO, "settings": settings, "also": [{"algo": "ga"}, {"dim": 6}]})
    assert [cell.settings.get("lr") for cell in experiment.cells()] == [0.5, 0.5, None, None, None]


@pytest.mark.parametrize(
    ("also", "message"),
    [
        ([{"seeds": 3}], "'seeds' cannot be changed under 'also'"),
        ([{"also": []}], "'also' cannot be changed under 'also'"),
        ([{"name": "x"}], "'name' cannot be changed under 'also'"),
        ([{"speed": 3}], "unknown key 'speed'"),
        ([{"algo": "sgd"}], "unknown algorithm 'sgd'"),
        ([{"pop": 0}], "bad value 0 for pop"),
        ([3], "bad value 3 for also"),
        ({"algo": "ga"}, "for also"),
    ],
)
def test_a_bad_also_is_one_sentence(also, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_experiment({**ALSO, "also": also})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_can_be_run(path):
    cells = make_experiment(read_config(path)).cells()
    assert len({cell.key for cell in cells}) == len(cells) > 3
    assert path.read_text().startswith("# ")
    assert "?" in path.read_text().splitlines()[0]


def test_figure_2_has_both_starts_of_the_baselines():
    cells = make_experiment(read_config(Path("configs/figure2.yaml"))).cells()
    assert {(cell.algo, cell.init) for cell in cells if cell.backend == "pymoo"} == {
        (algo, init) for algo in ("cmaes", "cmaes_tpa") for init in ("uniform", "centre")
    }
    assert {(cell.budget, cell.dim, cell.fn) for cell in cells} == {(500_000, 500, "michalewicz")}


# Families of tests


@pytest.mark.parametrize(
    ("given_family", "family"),
    [("pair", ("pair",)), ("pair, fn", ("pair", "fn")), (["fn", "dim"], ("fn", "dim")), ([], ())],
)
def test_families_of_tests_are_declared_and_change_no_cell(given_family, family):
    experiment = make_experiment({**MINIMAL, "test_family": given_family})
    assert experiment.test_family == family
    assert [one.settings_hash for one in experiment.cells()] == [cell().settings_hash]
    assert make_experiment(MINIMAL).test_family == ("pair",)


@pytest.mark.parametrize("bad", ["algo", ["pair", "seed"], 3])
def test_bad_families_are_refused(bad, refused):
    with refused("test_family"):
        make_experiment({**MINIMAL, "test_family": bad})


def test_a_family_is_the_whole_experiments(refused):
    with refused("'test_family' cannot be changed under 'also'"):
        make_experiment({**MINIMAL, "also": [{"test_family": "fn"}]})
