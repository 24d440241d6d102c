"""The sandbox of a pool process: no files, no network, no other processes, and a limit on memory.

A pool process decodes files of strangers. It enters the sandbox once it has loaded everything that it needs.
"""

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
    # reading and writing descriptors that it holds or receives; no fcntl, which can make a descriptor send signals
    "read", "readv", "pread64", "lseek", "fstat", "close", "write", "recvmsg", "poll", "ppoll",
    # memory
    "brk", "mmap", "munmap", "mremap", "mprotect", "madvise",
    # itself
    "futex", "sched_yield", "sched_getaffinity", "getcpu", "getpid", "gettid", "getrandom", "rseq", "membarrier",
    "clock_gettime", "clock_nanosleep", "nanosleep", "gettimeofday", "getrusage", "restart_syscall",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "exit", "exit_group",
)  # fmt: skip


def enter(*, memory_bytes: int) -> dict[str, bool]:
    """Give up every right that hearing an open file does not need. There is no way back, for later threads either.

    rlimit: the address space may grow by memory_bytes; no file may be written, and no core dump made.
    landlock: no file can be opened or created; from ABI 4 on no TCP connection made; from ABI 6 on no other process
        signalled.
    seccomp: only the system calls of _SYSTEM_CALLS are allowed; any other fails with EPERM.

    Returns:
        For each of GUARDS, whether it holds. A kernel may lack landlock or seccomp.
    """
    system_calls = _system_call_filter()  # before landlock, since it loads libseccomp from a file
    return {"rlimit": _limit(memory_bytes), "landlock": _landlock(), "seccomp": _loaded(system_calls)}


def landlock_abi() -> int:
    """The version of landlock that this kernel has, which says what landlock takes away; 0 where it has none."""
    from py_landlock import LandlockError, get_abi_version

    with contextlib.suppress(LandlockError):
        return int(get_abi_version())
    return 0


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
    # glibc's fstat calls newfstatat with AT_EMPTY_PATH. A caller could pass a path beside the flag, and would learn no
    # more than whether a file exists.
    allowed.add_rule(seccomp.ALLOW, "newfstatat", seccomp.Arg(3, seccomp.MASKED_EQ, _AT_EMPTY_PATH, _AT_EMPTY_PATH))
    return allowed


def _loaded(system_calls: Any) -> bool:
    if system_calls is None:
        return False
    with contextlib.suppress(OSError):
        system_calls.load()
        return True
    return False
