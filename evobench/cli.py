"""The `evobench` command: reads flags, calls the package, shows what comes back.

Only Typer is imported on top, so that `--help` answers at once; torch, pandas and pymoo come with the
command that needs them.
"""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.progress import TaskID
    from rich.table import Table

    from evobench.experiment import Cell, Experiment
    from evobench.runner import Listener, Plan, Summary, Task

OK, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""

PIPE_WIDTH = 120
"""Columns of a table where there is no terminal to ask."""

BACKEND_COST = {"evograd": 1, "pymoo": 30}
"""What an evaluation costs on either backend, relatively: only the estimate of the time left uses it."""


class _OneSentence(TyperGroup):
    """A Typer application whose every error is one sentence on stderr, never a traceback or a box."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> NoReturn:
        try:
            code = super().main(*args, standalone_mode=False, **extra)
        except (TyperException, ValueError, OSError) as error:
            complain(_sentence(error, self.list_commands))
            code = BAD_USAGE
        sys.exit(code or OK)


def _sentence(error: Exception, commands: Any) -> str:
    if isinstance(error, TyperException):
        text = error.format_message().rstrip(".")
        if text.startswith("No such command"):
            text += f": choose from {', '.join(commands(None))}"
        return text[0].lower() + text[1:]
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror.lower()}: '{error.filename}'" if error.filename else error.strerror.lower()
    return str(error)


def complain(message: str) -> None:
    """One line on stderr, whatever line breaks the message brought along."""
    typer.echo(f"error: {' '.join(message.split())}", err=True)


app = typer.Typer(
    cls=_OneSentence,
    add_completion=False,
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
    """Differentiable metaheuristics beside their classical versions: run, compare, plot.

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
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _option(name: str, text: str, **more: Any) -> Any:
    return typer.Option(f"--{name}", help=text, show_default=False, show_envvar=False, **more)


# Every option of `run` has its environment variable, EVOBENCH_ALGO and so on.
@app.command(context_settings={"auto_envvar_prefix": "EVOBENCH"})
def run(
    config: Annotated[
        Path | None, typer.Argument(help="A YAML file, as in configs/; options override it.", show_envvar=False)
    ] = None,
    algo: Annotated[str | None, _option("algo", "Algorithms, or all.", metavar="NAME,...")] = None,
    fn: Annotated[str | None, _option("fn", "Functions, all, or your own module:function.", metavar="NAME,...")] = None,
    dim: Annotated[str | None, _option("dim", "Dimensions, or all (30 and 50).", metavar="N,...")] = None,
    seeds: Annotated[str | None, _option("seeds", "A count, a range or a list [30].", metavar="30|0-29|1,4,7")] = None,
    budget: Annotated[int | None, _option("budget", "Evaluations a run [5000 x dim; 500000 at 500D].")] = None,
    pop: Annotated[int | None, _option("pop", "Population size [100].")] = None,
    device: Annotated[str | None, _option("device", "Where tensors live [auto].", metavar="auto|cpu|cuda|mps")] = None,
    dtype: Annotated[str | None, _option("dtype", "Of the state [the protocol's].", metavar="float32|float64")] = None,
    init: Annotated[str | None, _option("init", "The start [the protocol's].", metavar="centre|uniform")] = None,
    shift: Annotated[float | None, _option("shift", "Optimum moved by up to this much [the protocol's].")] = None,
    protocol: Annotated[str | None, _option("protocol", "Start, shift and costs [paper].", metavar="paper|fair")] = None,
    gradient_cost: Annotated[
        float | None, _option("gradient-cost", "Evaluations charged for a gradient [the protocol's].")
    ] = None,
    out: Annotated[Path | None, _option("out", "The experiment's directory [results/NAME].", metavar="DIR")] = None,
    jobs: Annotated[int | None, _option("jobs", "Worker processes [one a core].", min=1)] = None,
    fresh: Annotated[bool, _option("fresh", "Forget the stored runs of these cells first.")] = False,
    quiet: Annotated[bool, _option("quiet", "Print errors only.")] = False,
    settings: Annotated[
        list[str] | None, _option("set", "An algorithm's setting; repeatable.", metavar="ALGO.KEY=VALUE")
    ] = None,
) -> None:
    """Run an experiment; what is stored already is skipped.

    NAME is the config's file name, or adhoc. `evobench list` shows every name and setting. Each
    option has an environment variable: EVOBENCH_ALGO, EVOBENCH_GRADIENT_COST, ...

    \b
    Examples:
      evobench run --algo cmaes_diff --fn ackley --dim 50
      evobench run --algo pso,pso_diff --fn all --dim 30 --seeds 0-4 --set pso_diff.lr=0.005
      evobench run configs/figure1.yaml --protocol fair --out results/figure1-shifted
    """
    from rich.console import Console

    from evobench.runner import run_experiment
    from evobench.store import Store

    flags = {
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
    }
    given = {key: value for key, value in flags.items() if value is not None}
    experiment = _experiment(config, given, _parse_settings(settings or []))
    directory = out or Path("results") / experiment.name
    store = Store(directory)
    store.check_readable()
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, quiet=quiet)
    listener = Bars(console) if sys.stdout.isatty() and not console.is_dumb_terminal and not quiet else Lines(console)
    try:
        with listener if isinstance(listener, Bars) else nullcontext():
            summary = run_experiment(experiment, directory, jobs=jobs, fresh=fresh, listener=listener)
        _conclude(console, experiment, store, listener.plan, summary)
    except KeyboardInterrupt:
        again = "the same command without --fresh" if fresh else "the same command"
        typer.echo(f"stopped: everything finished is kept in {directory}, and {again} goes on from there", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except (ValueError, OSError) as error:
        if listener.plan is None:  # nothing was computed: the request itself was bad
            raise
        complain(_sentence(error, None))
        raise typer.Exit(FAILED) from None
    if summary.failures:
        raise typer.Exit(FAILED)
