"""The environments of peers that cannot live in ours: build/NAME, of deploy/locks/NAME.txt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python_of(name: str) -> Path:
    """The Python of an environment, which is made where it is not, or where its lock has changed."""
    folder, lock = ROOT / "build" / name, ROOT / f"deploy/locks/{name}.txt"
    made = folder / ".made"
    if not made.exists() or made.read_text() != lock.read_text():
        print(f"Making build/{name} ...", file=sys.stderr)
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", folder / "bin/python", "--no-deps"]
        subprocess.run([*install, "--compile-bytecode", "--require-hashes", "-r", lock], check=True)
        made.write_text(lock.read_text())
    return folder / "bin/python"
