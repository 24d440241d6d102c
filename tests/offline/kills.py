"""A folder is replaced by children that die, each one line of offline/files.py later than the one before.

    python -m tests.offline.kills FOLDER exchange|renames

replaces FOLDER/release by a newer one until a child lives to the end, and prints a JSON line for each child: its
number, what it left of the release, what check_replaceable makes of that, and what lies in FOLDER then.
"""

import errno
import json
import os
import signal
import sys
from pathlib import Path

from offline import files

FILES = ("manifest.json", "weights")


def fill(folder: Path, text: str) -> None:
    for name in FILES:
        (folder / name).write_text(text)


def read(folder: Path) -> list[str]:
    """The texts of the folder's files; empty where it is missing."""
    return [(folder / name).read_text() for name in FILES] if folder.exists() else []


def replace(out: Path, text: str, *, die_at: int) -> None:
    """Replace a folder, and die by SIGKILL before the given line of files.py that is run."""
    lines = 0

    def trace(frame, event, _):
        nonlocal lines
        if frame.f_code.co_filename != files.__file__:
            return None
        if event == "line":
            lines += 1
            if lines == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    with files.new_folder(out) as folder:
        fill(folder, text)
    sys.settrace(None)


def no_exchange(*_: Path) -> None:
    raise OSError(errno.EINVAL, "Invalid argument")  # as NFS answers


def main(folder: Path, way: str) -> None:
    if way == "renames":
        files._exchange = no_exchange
    out = folder / "release"
    out.mkdir()
    fill(out, "0")
    status, number = -1, 0
    while status:
        number += 1
        child = os.fork()
        if not child:
            replace(out, str(number), die_at=number)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        left = read(out)
        files.check_replaceable(out, FILES[0])
        report = {"number": number, "left": left, "then": read(out), "there": sorted(os.listdir(folder))}  # noqa: PTH208
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
