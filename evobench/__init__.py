"""evobench: what is true of "EvoGrad: Metaheuristics in a Differentiable Wonderland".

From Python: `evobench.minimize(function, dim=..., bounds=...)` minimises a function of yours;
`evobench.make_experiment({...})`, `evobench.run_experiment(experiment, directory)` and
`evobench.load_results(directory)` do what the command line does.
"""

from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "minimize": "api",
    "Result": "api",
    "make_experiment": "experiment",
    "run_experiment": "runner",
    "load_results": "store",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    """Import on first use: `import evobench` and `evobench --help` load no torch."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
