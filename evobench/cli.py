"""The `evobench` command: reads flags, calls the package, shows what comes back.

Only Typer and `files` are imported on top, so that `--help` answers at once; torch, pandas and pymoo come
with the command that needs them.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from evobench.files import locate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

    from evobench.experiment import Experiment

FAILED, BAD_USAGE, INTERRUPTED, TERMINATED = 1, 2, 130, 143
"""Exit codes other than 0."""

VARIABLES = "EVOBENCH"
"""Prefix of the environment variables of `run`."""

FINDINGS = 30
"""How many findings `verify` prints, and how many failures `run`."""

PIPE_WIDTH = 100
"""Columns of a table where there is no terminal to ask."""


class _OneSentence(TyperGroup):
    """A Typer application whose every error is one sentence on stderr, never a traceback or a box."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except TyperException as error:
            message = error.format_message().replace("Value error, ", "").rstrip(".")
            if message.startswith("No such command"):
                message += f": choose from {', '.join(self.commands)}"
            elif variable := _set_by_variable(error):
                message += f" ({variable} is '{os.environ[variable]}')"
            _complain(message[0].lower() + message[1:])
            code = BAD_USAGE
        except (ValueError, OSError) as error:
            _complain(_sentence(error))
            code = BAD_USAGE
        sys.exit(code or 0)


def _set_by_variable(error: TyperException) -> str | None:
    """The environment variable that may have brought a bad value."""
    variable = f"{VARIABLES}_{getattr(getattr(error, 'param', None), 'name', '')}".upper()
    return variable if variable in os.environ else None


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot use '{error.filename}': {error.strerror}" if error.filename else error.strerror
    return str(error)


def _complain(message: str) -> None:
    """One line on stderr, whatever line breaks and control characters the message brought along."""
    line = " ".join(message.split())
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    typer.echo(f"error: {printable}", err=True)


@contextmanager
def _resumable(again: str = "the same command") -> Iterator[None]:
    """Computing that may be stopped by Ctrl-C or SIGTERM, with one sentence and the exit code of either."""
    from evobench.interrupts import Terminated, terminable

    try:
        with terminable():
            yield
    except KeyboardInterrupt as stop:
        typer.echo(f"stopped: everything finished is kept, and {again} goes on from there", err=True)
        raise typer.Exit(TERMINATED if isinstance(stop, Terminated) else INTERRUPTED) from None


def _console(*, quiet: bool = False) -> Console:
    from rich.console import Console

    # Rich asks the terminal for its width, and takes 80 where there is none.
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, quiet=quiet, highlight=False, markup=False, emoji=False)


def _watched(console: Console) -> bool:
    """Whether somebody looks at a terminal that can be drawn on."""
    return sys.stdout.isatty() and not console.is_dumb_terminal


app = typer.Typer(
    cls=_OneSentence,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main() -> None:
    """The entry point of the `evobench` command."""
    app(prog_name="evobench")


@app.callback(invoke_without_command=True)
def _evobench(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Differentiable metaheuristics beside their classical versions.

    \b
    Examples:
      evobench run --algo cmaes_diff --fn ackley --dim 50
      evobench run configs/figure1.yaml
      evobench compare results/figure1
      evobench plot results/figure1 --kind box
    """
    if version:
        import evobench

        typer.echo(f"evobench {evobench.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _option(name: str, text: str, metavar: str | None = None, **more: Any) -> Any:
    return typer.Option(f"--{name}", help=text, metavar=metavar, show_default=False, show_envvar=False, **more)


@app.command(context_settings={"auto_envvar_prefix": VARIABLES})
def run(
    config: Annotated[
        Path | None, typer.Argument(help="A YAML file, as in configs/; options override it.", show_envvar=False)
    ] = None,
    algo: Annotated[str | None, _option("algo", "Algorithms, or all: the paper's eight.", "NAMES")] = None,
    fn: Annotated[str | None, _option("fn", "Functions, all, or your own as module:function.", "NAMES")] = None,
    dim: Annotated[str | None, _option("dim", "Dimensions, or all: 30,50.", "NUMBERS")] = None,
    seeds: Annotated[str | None, _option("seeds", "A count, a range or a list [30].", "30|0-29|1,4,7")] = None,
    budget: Annotated[str | None, _option("budget", "Evaluations of a run [5000 x dimension].", "N")] = None,
    pop: Annotated[str | None, _option("pop", "Population size [100].", "N")] = None,
    device: Annotated[str | None, _option("device", "Where tensors live [auto].", "auto|cpu|cuda|mps")] = None,
    dtype: Annotated[str | None, _option("dtype", "Of an algorithm's state [*].", "float32|float64")] = None,
    init: Annotated[str | None, _option("init", "Where runs start [*].", "centre|uniform")] = None,
    shift: Annotated[str | None, _option("shift", "The optimum is moved by up to this much [*].", "X")] = None,
    protocol: Annotated[str | None, _option("protocol", "Sets what is marked [*] here [paper].", "paper|fair")] = None,
    gradient_cost: Annotated[
        str | None, _option("gradient-cost", "Evaluations charged for a gradient [*].", "X")
    ] = None,
    compile: Annotated[bool, _option("compile", "Machine code first: 20-60 s, then 2-3x as fast.")] = False,
    out: Annotated[str | None, _option("out", "The experiment's directory, or URL [results/NAME].", "DIR")] = None,
    jobs: Annotated[str | None, _option("jobs", "Worker processes [one a core].", "N")] = None,
    executor: Annotated[
        Literal["local", "ray"] | None,
        _option("executor", "Where tasks run [local].", "local|ray"),
    ] = None,
    address: Annotated[str | None, _option("address", "Of the Ray cluster [this machine's].", "HOST:PORT")] = None,
    fresh: Annotated[bool, _option("fresh", "Forget the stored runs of these cells and seeds first.")] = False,
    quiet: Annotated[bool, _option("quiet", "Print errors only.")] = False,
    settings: Annotated[
        list[str] | None,
        _option("set", "A setting of an algorithm; repeatable.", "ALGO.KEY=VALUE", envvar="EVOBENCH_SET"),
    ] = None,
) -> None:
    """Run what is missing of an experiment.

    Lists are separated by commas. NAME is the config's file name, or adhoc. Each option has its
    environment variable: EVOBENCH_ALGO, EVOBENCH_GRADIENT_COST, ... See also: evobench list.

    \b
    Examples:
      evobench run --algo cmaes_diff --fn ackley --dim 50
      evobench run --algo pso,pso_diff --fn all --dim 30 --set pso_diff.lr=0.005
      evobench run configs/figure1.yaml --seeds 0-4 --out results/figure1-short
    """
    if out is not None and not out.strip():
        raise ValueError(f"bad --out '{out}': name a directory")
    processes = _processes(jobs)
    if address is not None and executor != "ray":
        raise ValueError(f"--address '{address}' is a Ray cluster's: give --executor ray too")
    with _resumable("the same command without --fresh" if fresh else "the same command"):
        from evobench import terminal
        from evobench.runner import run_experiment
        from evobench.store import load_results

        asked = {
            "algo": algo,
            "fn": fn,
            "dim": dim,
            "seeds": seeds,
            "budget": budget,
            "pop": pop,
            "device": device,
            "dtype": dtype,
            "init": init,
            "shift": shift,
            "protocol": protocol,
            "gradient_cost": gradient_cost,
            "compile": compile or None,
        }
        flags = {key: value for key, value in asked.items() if value is not None}
        experiment = _experiment(config, flags, settings or [])
        directory = Path("results", experiment.name) if out is None else locate(out)
        console = _console(quiet=quiet)
        listener = (terminal.Bars if _watched(console) and not quiet else terminal.Lines)(console)
        try:
            with listener:
                summary = run_experiment(
                    experiment,
                    directory,
                    jobs=processes,
                    fresh=fresh,
                    listener=listener,
                    executor=executor or "local",
                    address=address,
                )
            if summary.computed or summary.stored:
                console.print()
                console.print(terminal.cells_table(experiment, load_results(directory)))
        except (ValueError, OSError) as error:
            if listener.plan is None:
                raise  # the request itself was bad, and nothing is written
            _complain(_sentence(error))
            raise typer.Exit(FAILED) from None
        console.print(f"\n{summary.computed:,} runs computed, {summary.stored:,} found, in {directory}", soft_wrap=True)
        console.print(f"  evobench compare {directory}\n  evobench plot {directory} --kind box", soft_wrap=True)
        for task, reason in summary.failures[:FINDINGS]:
            _complain(f"{task} failed: {reason}")
        if summary.failures:
            count = f"{len(summary.failures)} task{'s' if len(summary.failures) != 1 else ''}"
            again = f"{count} failed, recorded in {directory / 'failed'}: the same command tries them again"
            console.print(again, soft_wrap=True)
            raise typer.Exit(FAILED)


def _experiment(config: Path | None, flags: dict[str, Any], settings: list[str]) -> Experiment:
    """A config's content, overridden by flags.

    Raises:
        ValueError: naming the bad value and what is allowed.
    """
    from evobench.algorithms import ALGORITHMS
    from evobench.configs import read_config
    from evobench.experiment import WHOLE, make_experiment, own_dimension

    known = {*flags, *(["dim"] if own_dimension(flags.get("fn")) else [])}
    if config is None and not known >= {"algo", "fn", "dim"}:
        raise ValueError("nothing to run: give a config file, or --algo, --fn and --dim")
    content = {**(read_config(config) if config else {}), **flags}
    if isinstance(also := content.get("also"), list):  # a flag is for every product
        each = {key: value for key, value in flags.items() if key not in WHOLE}
        content["also"] = [{**other, **each} if isinstance(other, dict) else other for other in also]
    configured = content.pop("settings", {})
    experiment = make_experiment(content)
    if "algo" in flags and isinstance(configured, dict):  # --algo may leave out what the config configures
        configured = {
            name: values for name, values in configured.items() if name in experiment.algo or name not in ALGORITHMS
        }
    experiment = make_experiment({**content, "settings": configured})
    if settings:
        experiment = make_experiment({**content, "settings": _overridden(experiment.settings, settings)})
    return experiment


def _overridden(settings: Mapping[str, dict[str, Any]], texts: list[str]) -> dict[str, dict[str, Any]]:
    """Settings by algorithm, with those of `--set` over them.

    Raises:
        ValueError: as `_parse_setting`.
    """
    merged = dict(settings)
    for name, key, value in map(_parse_setting, texts):
        merged[name] = {**merged.get(name, {}), key: value}
    return merged


def _processes(jobs: str | None) -> int | None:
    """The number that `--jobs` gives.

    Raises:
        ValueError: if it is none.
    """
    if jobs is not None and not re.fullmatch(r"0*[1-9][0-9]{0,3}", jobs):
        raise ValueError(f"bad --jobs '{jobs}': give a number from 1 to 9999")
    return int(jobs) if jobs else None


def _parse_setting(text: str) -> tuple[str, str, Any]:
    """Algorithm, key and value of `pso_diff.lr=0.005`; the value is read as in a config.

    Raises:
        ValueError: if it does not have this form.
    """
    import yaml

    match = re.fullmatch(r"(\w+)\.(\w+)=(.+)", text.strip())
    try:
        if match is None:
            raise ValueError
        return match[1], match[2], yaml.safe_load(match[3])
    except (ValueError, yaml.YAMLError):
        raise ValueError(f"bad --set '{text}': give ALGO.KEY=VALUE, such as pso_diff.lr=0.005") from None


Results = Annotated[
    Path, typer.Argument(metavar="DIR", help="An experiment's directory, such as results/figure1.", parser=locate)
]


@app.command()
def compare(
    directory: Results,
    form: Annotated[
        Literal["table", "markdown", "csv", "latex", "json"], typer.Option("--format", help="How to write it.")
    ] = "table",
    view: Annotated[
        Literal["final", "budget", "target", "time"], typer.Option("--view", help="What to look at.")
    ] = "final",
    gradient_cost: Annotated[
        str | None, _option("gradient-cost", "Recharge gradients; all: 0,1,2,5,10.", "PRICES|all")
    ] = None,
    config: Annotated[Path | None, _option("config", "A config that declares test_family.", "FILE")] = None,
) -> None:
    """Compare algorithms: medians, tests, effect sizes.

    \b
    final   medians, quartiles, success; every pair tested (Holm), effect sizes
    budget  medians and interquartile ranges with bootstrap intervals
    target  success rates and expected running times (ERT) to gaps of 1e2 to 1e-8
    time    best fitness after so many seconds of a run

    --gradient-cost shows instead how verdicts change with the price of a gradient, in evaluations.

    \b
    Examples:
      evobench compare results/figure1
      evobench compare results/figure1 --view target --format csv > targets.csv
      evobench compare results/figure1 --gradient-cost all
    """
    from evobench import runtimes, stats, tables
    from evobench.store import load_results

    prices = _prices(gradient_cost) if gradient_cost is not None else []
    if prices and view != "final":
        raise ValueError(f"--gradient-cost has a table of its own: leave out --view {view}")
    family = _experiment(config, {}, []).test_family if config else stats.FAMILY
    runs = load_results(directory)
    if prices:
        frames = {"prices": runtimes.by_price(load_results(directory, "history"), runs, prices, family)}
    else:
        match view:
            case "final":
                frames = {"summary": stats.summarise(runs), "comparisons": stats.compare(runs, family)}
            case "budget":
                frames = {"intervals": stats.summarise(runs)}
            case "target":
                frames = {"targets": runtimes.to_targets(load_results(directory, "history"), runs)}
            case "time":
                frames = {"seconds": runtimes.at_seconds(load_results(directory, "history"), runs)}
    if form == "table" and sys.stdout.isatty():
        _console().print(tables.terminal(frames))
    else:
        typer.echo(tables.render(frames, form), nl=False)


def _prices(text: str) -> list[float]:
    """The prices of `0,2.5,10`, or `all`.

    Raises:
        ValueError: naming what is no price.
    """
    from evobench.runtimes import PRICES

    if text.strip() == "all":
        return list(PRICES)
    for part in text.split(","):
        if not re.fullmatch(r"\s*[0-9]{1,9}(\.[0-9]{1,9})?\s*", part):
            raise ValueError(f"bad --gradient-cost '{text}': give prices of 0 or more, such as 0,1,5, or all")
    return list(dict.fromkeys(map(float, text.split(","))))


@app.command()
def plot(
    directory: Results,
    kind: Annotated[
        Literal["box", "convergence", "ecdf", "profile", "cd", "figure2", "learned", "wine"],
        typer.Option("--kind", help="What to draw."),
    ] = "box",
    out: Annotated[
        Path | None, _option("out", "The files, without their ending [DIR/figures/KIND].", "PATH", parser=locate)
    ] = None,
    show: Annotated[bool, _option("show", "A preview in the terminal as well.")] = False,
) -> None:
    """Draw the results of an experiment as PNG, PDF and SVG.

    box: final values, as in the paper's Figure 1. convergence: best value over evaluations.
    ecdf: share of targets reached over evaluations. profile: data profiles, share of problems
    solved. cd: average ranks with the critical difference, which describe and test nothing.
    figure2: the paper's Figure 2, means and standard deviations, beside medians and quartiles.
    learned: the hyper-parameters that runs adapt, over evaluations. wine: the four questions of
    evobench wine.

    \b
    Examples:
      evobench plot results/figure1 --kind box
      evobench plot results/figure1 --kind convergence --out paper/curves --show
    """
    from evobench import figures
    from evobench.store import load_results

    runs = load_results(directory)
    match kind:
        case "box":
            figure = figures.box(runs)
        case "convergence":
            figure = figures.convergence(load_results(directory, "history"), runs)
        case "ecdf":
            figure = figures.ecdf(load_results(directory, "history"), runs)
        case "profile":
            figure = figures.profile(load_results(directory, "history"), runs)
        case "cd":
            figure = figures.cd(runs)
        case "figure2":
            figure = figures.figure2(load_results(directory, "history"), runs)
        case "learned":
            figure = figures.learned(load_results(directory, "history"), runs)
        case "wine":
            from evobench import wine_report

            figure = wine_report.figure(runs)
    stem = out or directory / "figures" / kind
    if stem.suffix in (".png", ".pdf", ".svg"):
        stem = stem.with_suffix("")
    if stem.is_dir():
        stem = stem / kind
    for path in figures.save(figure, stem):
        typer.echo(path)
    if show:
        from evobench import preview

        console = _console()
        console.print(preview.draw(figure, console.width))


@app.command()
def watch(
    directory: Results,
    every: Annotated[float, typer.Option("--every", help="Seconds between two looks.", min=0.1)] = 2.0,
) -> None:
    """Follow a run from another terminal, until it is complete.

    Reads the results only: runs that are stored, the best, the rate, the time left. A line for
    every change where there is no terminal. Ctrl-C ends the watching, not the run.

    \b
    Example:
      evobench watch results/figure1
    """
    from evobench import watch as watching
    from evobench.store import Store

    console = _console()
    try:
        watching.watch(Store(directory), console, every=every, live=_watched(console))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def doctor() -> None:
    """Versions, device, threads, compiler, and a two-second measurement of speed.

    Lines with a ! say what could be better. Exit code 0 in any case.

    \b
    Example:
      evobench doctor
    """
    from evobench import doctor as doctors

    width = 12
    for line in [*doctors.examine(), doctors.measure()]:
        typer.echo(f"{line.name:{width}}{line.value}")
        if line.warning:
            typer.echo(f"{'':{width - 2}}! {line.warning}")


@app.command(context_settings={"auto_envvar_prefix": VARIABLES})
def wine(
    data: Annotated[
        Path | None, _option("data", "winequality-red.csv [downloaded once, into the user's cache].", "FILE")
    ] = None,
    algo: Annotated[str | None, _option("algo", "Only these algorithms.", "NAMES")] = None,
    seeds: Annotated[str | None, _option("seeds", "A count, a range or a list [30].", "30|0-29|1,4,7")] = None,
    device: Annotated[str | None, _option("device", "Where tensors live [auto].", "auto|cpu|cuda|mps")] = None,
    out: Annotated[str | None, _option("out", "The experiment's directory [results/wine].", "DIR")] = None,
    jobs: Annotated[str | None, _option("jobs", "Worker processes [one a core].", "N")] = None,
    fresh: Annotated[bool, _option("fresh", "Forget the stored runs of these cells and seeds first.")] = False,
    form: Annotated[
        Literal["table", "markdown"], typer.Option("--format", help="How to write the table.", show_envvar=False)
    ] = "table",
) -> None:
    """Train the paper's wine network: run configs/wine.yaml, then its table and figure.

    Four questions: the paper's setting with and without the broadcast in its loss, equal starts,
    equal cost, and what generalises. What is stored is not computed again. `--algo` and `--seeds`
    run a part; the table and the figure show all that is stored.

    \b
    Examples:
      evobench wine
      evobench wine --data winequality-red.csv --algo adam,cmaes_diff --seeds 5
    """
    if data is not None:
        os.environ[f"{VARIABLES}_DATA"] = str(data)  # where workers look, too
    run(Path("configs/wine.yaml"), algo=algo, seeds=seeds, device=device, out=out, jobs=jobs, fresh=fresh)
    from evobench import figures, tables, wine_report
    from evobench.store import load_results

    directory = locate(out or "results/wine")
    runs = load_results(directory)
    blocks = wine_report.blocks(runs)
    typer.echo()
    if form == "markdown":
        typer.echo("\n".join(map(tables.markdown, blocks)), nl=False)
    else:
        _console().print(tables.grids(blocks))
    for path in figures.save(wine_report.figure(runs), directory / "figures" / "wine"):
        typer.echo(path)


@app.command()
def claims(
    results: Annotated[Path, _option("results", "Where experiments are [results].", "DIR", parser=locate)] = Path(
        "results"
    ),
    form: Annotated[Literal["table", "markdown", "json"], typer.Option("--format", help="How to write it.")] = "table",
) -> None:
    """Judge the paper's claims C1 to C7 by the stored runs.

    Each has a rule, written from the paper's words, and is judged under its protocol and a fair
    one: reproduced, reproduced only under the paper's protocol, not reproduced, not testable, or
    evidence missing (with the command that computes it).

    Then G, which is not the paper's: whether this project's own `_guarded` algorithms beat the
    same programs without a gradient, pymoo and gradients alone (fair protocol).

    \b
    Examples:
      evobench claims
      evobench claims --format markdown > claims.md
    """
    from evobench import bar, verdicts
    from evobench.claims import judge, sources

    if not results.is_dir():
        raise ValueError(f"bad --results '{results}': it is no directory")
    source = sources(results)
    judgements, own = judge(results, source=source), bar.judge(results, source)
    if form == "table" and sys.stdout.isatty():
        _console().print(verdicts.terminal(judgements, own))
    else:
        typer.echo(verdicts.render(judgements, form, own), nl=False)


@app.command()
def report(
    results: Annotated[
        Path,
        typer.Argument(metavar="RESULTS", help="Where experiments are [results].", show_default=False, parser=locate),
    ] = Path("results"),
    out: Annotated[Path, _option("out", "Where index.html is written [report].", "DIR", parser=locate)] = Path(
        "report"
    ),
) -> None:
    """Write one static page with all that the stored runs show.

    Claims with their verdicts and evidence, figures, learned hyper-parameters, tables, versions
    and the commands that recompute each. Runs nothing: what is missing is named. The page needs
    no network and no JavaScript.

    \b
    Examples:
      evobench report
      evobench report results/ --out report/
    """
    from evobench import report as reports

    path = reports.write(results, out)
    typer.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


@app.command()
def verify(directory: Results) -> None:
    """Check every file and row: whole, complete, true.

    Files are read whole; each run's hash, budget and history are checked, and best_f is compared
    with the objective at best_x, evaluated again; tasks that failed are listed. Exit code 1 if
    anything is found.

    \b
    Example:
      evobench verify results/figure1
    """
    from evobench.store import Store
    from evobench.verify import verify as check

    report = check(Store(directory))
    for finding in report.findings[:FINDINGS]:
        typer.echo(f"{finding.where}: {finding.what}")
    if len(report.findings) > FINDINGS:
        typer.echo(f"... and {len(report.findings) - FINDINGS:,} more")
    found = f"{len(report.findings)} finding{'s' if len(report.findings) != 1 else ''}"
    typer.echo(f"{report.files} files, {report.runs:,} runs: {found if report.findings else 'all in order'}")
    if report.findings:
        raise typer.Exit(FAILED)


@app.command("bias")
def bias_(
    algo: Annotated[str, _option("algo", "Algorithms, separated by commas.", "NAMES")],
    dim: Annotated[str, _option("dim", "Dimensions [30].", "NUMBERS")] = "30",
    seeds: Annotated[str, _option("seeds", "A count, a range or a list [30].", "30|0-29|1,4,7")] = "30",
    budget: Annotated[str | None, _option("budget", "Evaluations of a run [5000 x dimension].", "N")] = None,
    init: Annotated[
        Literal["centre", "uniform"] | None, _option("init", "Look at this start too, beside their own.")
    ] = None,
    out: Annotated[Path, _option("out", "The experiment's directory [results/bias].", "DIR", parser=locate)] = Path(
        "results/bias"
    ),
    jobs: Annotated[str | None, _option("jobs", "Worker processes [one a core].", "N")] = None,
    settings: Annotated[
        list[str] | None, _option("set", "A setting of an algorithm; repeatable.", "ALGO.KEY=VALUE")
    ] = None,
) -> None:
    """Do algorithms profit from an optimum at the centre of the box?

    Runs them on six functions, with the optimum at the centre and shifted as in the fair protocol,
    and compares the errors as J. Kudela does (Nature Machine Intelligence 4, 2022): where the
    geometric mean of the ratios is above 10 there is a centre bias. Resumes where it stopped.

    \b
    Examples:
      evobench bias --algo cmaes_diff
      evobench bias --algo cmaes_diff,cmaes_plain --init uniform --seeds 10
    """
    processes = _processes(jobs)
    from evobench import bias, terminal
    from evobench.runner import run_experiment
    from evobench.store import load_results

    experiment = bias.bias_experiment(
        algo, dim=dim, seeds=seeds, budget=budget, init=init, settings=_overridden({}, settings or [])
    )
    console = _console()
    listener = (terminal.Bars if _watched(console) else terminal.Lines)(console)
    with _resumable(), listener:
        summary = run_experiment(experiment, out, jobs=processes, listener=listener)
    for task, reason in summary.failures:
        _complain(f"{task} failed: {reason}")
    if summary.computed or summary.stored:
        console.print()
        console.print(terminal.bias_tables(*bias.assess(experiment, load_results(out))))
    if summary.failures:
        raise typer.Exit(FAILED)


@app.command("gradients")
def gradients_(
    algo: Annotated[str, _option("algo", "Algorithms that take gradients.", "NAMES")],
    fn: Annotated[str, _option("fn", "Functions [ackley].", "NAMES")] = "ackley",
    dim: Annotated[str, _option("dim", "Dimensions [10].", "NUMBERS")] = "10",
    seeds: Annotated[str, _option("seeds", "A count, a range or a list [10].", "30|0-29|1,4,7")] = "10",
    budget: Annotated[str | None, _option("budget", "Evaluations of a run [5000 x dimension].", "N")] = None,
    protocol: Annotated[str, _option("protocol", "Start, shift, price, precision [paper].", "paper|fair")] = "paper",
    settings: Annotated[
        list[str] | None, _option("set", "A setting of an algorithm; repeatable.", "ALGO.KEY=VALUE")
    ] = None,
) -> None:
    """Which parameters receive a gradient, how often and how strongly?

    reached: share of generations and runs with a gradient that is not 0; entries: share of the
    parameter's entries that it reaches then. Nothing is stored.

    \b
    Examples:
      evobench gradients --algo cmaes_diff
      evobench gradients --algo pso_diff,pso_released --fn rosenbrock --dim 30
    """
    from evobench import gradients, terminal
    from evobench.experiment import make_experiment

    asked = {"algo": algo, "fn": fn, "dim": dim, "seeds": seeds, "budget": budget, "protocol": protocol}
    experiment = make_experiment({**asked, "settings": _overridden({}, settings or [])})
    cells = experiment.cells()
    for cell in cells:
        gradients.check(cell)
    for cell in cells:
        found = gradients.observe(cell, experiment.seeds)
        _console().print(terminal.gradients_table(cell, len(experiment.seeds), found))


@app.command()
def check(
    algo: Annotated[str | None, _option("algo", "Only these algorithms [the reference's].", "NAMES")] = None,
    fn: Annotated[str | None, _option("fn", "Only these functions [the reference's].", "NAMES")] = None,
    seeds: Annotated[str | None, _option("seeds", "Other seeds, or fewer [0-99].", "30|0-29|1,4,7")] = None,
    by: Annotated[
        Literal["auto", "exact", "distribution"],
        typer.Option("--by", help="How to compare; auto: exact on the reference's platform."),
    ] = "auto",
    reference: Annotated[Path | None, _option("reference", "A reference of your own.", "FILE")] = None,
    update: Annotated[bool, _option("update", "Make the present code the reference.")] = False,
    summary: Annotated[
        Path | None, _option("summary", "Markdown for a pull request [$GITHUB_STEP_SUMMARY].", "FILE")
    ] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", help="Worker processes [one a core].", min=1)] = None,
) -> None:
    """Compare a quick set of runs with a stored reference.

    Exit code 1 if a cell (algorithm, function) ends elsewhere than it did. On the reference's
    platform and versions every run must be the same to the bit; elsewhere samples are compared.

    \b
    Examples:
      evobench check
      evobench check --algo pso_diff --fn ackley --seeds 1000-1099
      evobench check --algo es_diff,es_plain --reference es.parquet --update
    """
    from evobench import check as checks
    from evobench import terminal

    path = reference or checks.REFERENCE
    if update:
        if reference is None and (algo or fn or seeds):
            raise ValueError("--update of a part would lose the rest: leave out --algo, --fn and --seeds")
        algos, fns = algo or ",".join(checks.ALGOS), fn or ",".join(checks.FNS)
        known = None
    else:
        known = checks.load(path)
        algos = algo or ",".join(dict.fromkeys(known.runs["algo"]))
        fns = fn or ",".join(dict.fromkeys(known.runs["fn"]))
    default = checks.REFERENCE_SEEDS if update else checks.SEEDS
    experiment = checks.check_set(algos.split(","), fns.split(","), seeds or default)
    exact = known is not None and (by == "exact" or (by == "auto" and checks.same_platform(known.origin)))
    if exact and known is not None and not set(experiment.seeds) <= set(known.runs["seed"]):
        if by == "exact":
            raise ValueError("--by exact needs the reference's seeds: leave out --seeds")
        exact = False
    console = _console()
    watched = _watched(console)
    listener = (terminal.Bars if watched else terminal.Lines)(_console(quiet=not watched))
    try:
        with listener:
            runs = checks.measure(experiment, jobs, listener)
    except RuntimeError as error:
        _complain(str(error))
        raise typer.Exit(FAILED) from None
    if known is None:
        checks.save(runs, path)
        typer.echo(f"{len(runs):,} runs are the reference now: {path}")
        return
    table = checks.compare(runs, known.runs, exact=exact)
    failed = checks.findings(table)
    if failed:
        console.print(terminal.plain_rows(checks.HEADERS, failed))
    typer.echo(checks.headline(table, known.origin, exact=exact))
    text = checks.markdown(table, known.origin, exact=exact)
    if summary is not None:
        summary.write_text(text, encoding="utf-8")
    elif step := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(step).open("a", encoding="utf-8") as file:
            file.write(text)
    if failed:
        raise typer.Exit(FAILED)


@app.command("list")
def list_(
    section: Annotated[
        Literal["algorithms", "functions", "protocols", "configs", "settings"] | None,
        typer.Argument(help="Only this.", show_default=False),
    ] = None,
) -> None:
    """List algorithms, functions, protocols, configs and settings.

    \b
    Examples:
      evobench list
      evobench list settings
    """
    from evobench import terminal

    console = _console()
    tables = {
        "algorithms": terminal.algorithms_table,
        "functions": terminal.functions_table,
        "protocols": terminal.protocols_table,
        "configs": terminal.configs_table,
        "settings": terminal.settings_list,
    }
    for name, table in tables.items():
        if section in (None, name):
            console.print(table())
            if section is None:
                console.print()
