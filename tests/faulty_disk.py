"""Makes the kernel fail this process's disk calls, as a full or a broken disk would: a seccomp filter, which needs
neither root nor a compiler, and which nothing takes back.

Also: how a test that runs as root does without root's right to write everywhere.
"""

import ctypes
import errno
import os
import platform
import struct

# By machine: the audit architecture, and the numbers of these calls (linux/audit.h, unistd.h).
_MACHINES = {
    "x86_64": (0xC000003E, {"pwrite64": 18, "fsync": 74, "fdatasync": 75}),
    "aarch64": (0xC00000B7, {"pwrite64": 68, "fsync": 82, "fdatasync": 83}),
}
# What fails, and how: SQLite writes by pwrite64, our own files end with an fsync.
FULL = ({"pwrite64", "fsync", "fdatasync"}, errno.ENOSPC)
BROKEN = ({"fsync", "fdatasync"}, errno.EIO)

_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # linux/seccomp.h
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE = 24, 1


def fail(calls: set[str], number: int) -> None:
    """From now on these calls return the error `number`."""
    architecture, numbers = _MACHINES[platform.machine()]
    program = [(_LOAD, 0, 0, 4), (_JUMP_IF_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, 0)]
    for call in sorted(calls):
        program += [(_JUMP_IF_EQUAL, 0, 1, numbers[call]), (_RETURN, 0, 0, _ERRNO | number)]
    program.append((_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    arguments = ctypes.c_ulong(ctypes.addressof(header)), ctypes.c_ulong(0), ctypes.c_ulong(0)
    zeros = ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)
    if prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), *zeros) or prctl(
        _PR_SET_SECCOMP, ctypes.c_ulong(_FILTER), *arguments
    ):
        raise OSError(ctypes.get_errno(), "seccomp")


def without_roots_rights() -> None:
    """What this process executes next can't write where permissions forbid it; nothing for others than root."""
    if os.getuid() == 0:
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0)
