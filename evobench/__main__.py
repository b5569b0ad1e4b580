"""`python -m evobench`, the same as the `evobench` command."""

from evobench.cli import main

if __name__ == "__main__":  # worker processes import this module again
    main()
