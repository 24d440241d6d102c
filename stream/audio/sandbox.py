"""What a pool process gives up before it hears strangers' files: files, network, other processes, endless memory."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from pathlib import Path
from typing import Any

GUARDS = ("rlimit", "landlock", "seccomp")

_AT_EMPTY_PATH = 0x1000
_SYSTEM_CALLS = (
    # the descriptors it holds, and those it is handed
    "read", "readv", "pread64", "lseek", "fstat", "close", "write", "recvmsg", "poll", "ppoll", "fcntl",
    # memory
    "brk", "mmap", "munmap", "mremap", "mprotect", "madvise",
    # itself
    "futex", "sched_yield", "sched_getaffinity", "getcpu", "getpid", "gettid", "getrandom", "rseq", "membarrier",
    "clock_gettime", "clock_nanosleep", "nanosleep", "gettimeofday", "getrusage", "restart_syscall",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "exit", "exit_group",
)  # fmt: skip


def enter(*, memory_bytes: int) -> dict[str, bool]:
    """Give up, for good and in all threads to come, whatever is not needed to hear an open file.

    rlimit: memory_bytes of address space beyond what is taken now, no file longer than it is, no core dump.
    landlock: no file is opened or made, no TCP connection, no signal to other processes.
    seccomp: the system calls above alone; any other gives EPERM, whoever asks.

    Returns:
        For each of GUARDS whether it holds; a kernel may lack landlock or seccomp.
    """
    system_calls = _system_call_filter()  # its library is a file, too
    return {"rlimit": _limit(memory_bytes), "landlock": _landlock(), "seccomp": _loaded(system_calls)}


def _limit(memory_bytes: int) -> bool:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    address_space = pages * os.sysconf("SC_PAGE_SIZE") + memory_bytes
    for kind, limit in (
        (resource.RLIMIT_AS, address_space), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)
    ):  # fmt: skip
        resource.setrlimit(kind, (limit, limit))
    return True


def _landlock() -> bool:
    from py_landlock import Landlock, LandlockError

    with contextlib.suppress(LandlockError):
        Landlock(strict=False).apply()
        return True
    return False


def _system_call_filter() -> Any:
    try:
        import pyseccomp as seccomp
    except RuntimeError:  # there is no libseccomp
        return None
    allowed = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for name in _SYSTEM_CALLS:
        allowed.add_rule(seccomp.ALLOW, name)
    # What glibc makes of fstat; a path beside the flag would tell no more than that a file is there.
    allowed.add_rule(seccomp.ALLOW, "newfstatat", seccomp.Arg(3, seccomp.MASKED_EQ, _AT_EMPTY_PATH, _AT_EMPTY_PATH))
    return allowed


def _loaded(system_calls: Any) -> bool:
    if system_calls is None:
        return False
    with contextlib.suppress(OSError):
        system_calls.load()
        return True
    return False
