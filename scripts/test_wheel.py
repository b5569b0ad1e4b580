"""The package as a user installs it: a wheel, an environment of its own, an empty directory, a small figure.

    python scripts/test_wheel.py

The dependencies are those of the environment that runs this script, added to the new one's path after
its own packages, so that nothing is downloaded and torch is not installed twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    "--version",
    "list configs",
    "run quick --fn sphere,ackley --dim 2 --seeds 2 --budget 300 --pop 10 --quiet --out results/quick",
    "run configs/quick.yaml --fn sphere,ackley --dim 2 --seeds 2 --budget 300 --pop 10 --quiet --out results/quick",
    "compare results/quick",
    "plot results/quick --kind box",
    "report results",
    "verify results/quick",
    "check --algo pso_plain --fn ackley --jobs 1",
)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="evobench-wheel-") as name:
        place = Path(name)
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place / "dist"], cwd=ROOT, check=True
        )
        (wheel,) = (place / "dist").glob("*.whl")
        venv.create(place / "env", with_pip=True)
        binaries = place / "env" / "bin"
        subprocess.run([binaries / "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True)
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = place / "env" / "lib" / python / "site-packages"
        (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
        user = place / "user"
        user.mkdir()
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        where = [binaries / "python", "-c", "import evobench; print(evobench.__file__)"]
        found = subprocess.run(where, cwd=user, env=environment, check=True, capture_output=True, text=True).stdout
        if not found.startswith(str(place)):
            raise SystemExit(f"not the wheel's package, but {found}")
        for command in COMMANDS:
            print(f"$ evobench {command}", flush=True)
            subprocess.run([binaries / "evobench", *command.split()], cwd=user, env=environment, check=True)
        figures = sorted(path.name for path in (user / "results/quick/figures").iterdir())
        print(f"{wheel.name} works outside the repository: {', '.join(figures)}")


if __name__ == "__main__":
    main()
