import signal
import subprocess
import sys
import threading

import pytest

from models.errors import ProcessTimedOut
from offline.features.time_limit import time_limit


def test_what_waits_in_python_is_ended_by_an_error_and_what_ends_in_time_is_not():
    before = signal.getsignal(signal.SIGALRM)
    with (
        pytest.raises(ProcessTimedOut, match=r"the track took longer than 0\.05 s"),
        time_limit(0.05, what="the track"),
    ):
        threading.Event().wait(60)
    with time_limit(60, what="the track"):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_what_hangs_in_c_ends_with_its_process():
    hangs = "with time_limit(0.2, what='it'): sum(__import__('itertools').repeat(0))"
    program = f"from offline.features.time_limit import time_limit\n{hangs}"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (1, b"", b"")
