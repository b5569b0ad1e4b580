"""Classical optimisers from other libraries, on the CPU, one process per run."""
