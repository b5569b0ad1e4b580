"""evobench: what is true of "EvoGrad: Metaheuristics in a Differentiable Wonderland"."""

__version__ = "0.1.0"
