"""The few calls of the kernel that Python does not offer, through libc. Runs in the jail: standard library only."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
MNT_DETACH = 2
NEWNS, NEWUSER, NEWPID, NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
NEWIPC, NEWUTS, NEWCGROUP = 0x8000000, 0x4000000, 0x2000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_SETATTR = 442
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raise OSError with libc's reason where a call returned an error."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    check(libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    done = libc.mount(source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode())
    check(done, f"mount {source} on {target}")


def lock(target: str, *, writable: bool = False, devices: bool = False) -> None:
    """Make a mount and all below it read-only (unless ``writable``), without set-uid programs and devices."""
    bits = ATTR_NOSUID | (0 if writable else ATTR_RDONLY) | (0 if devices else ATTR_NODEV)
    attr = struct.pack("<QQQQ", bits, 0, 0, 0)
    done = libc.syscall(MOUNT_SETATTR, AT_FDCWD, target.encode(), AT_RECURSIVE, attr, ctypes.c_size_t(len(attr)))
    check(done, f"mount_setattr {target}")


def pivot(root: str) -> None:
    """Make ``root`` the root folder and let go of the old one."""
    os.chdir(root)
    check(libc.syscall(PIVOT_ROOT[platform.machine()], b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def prctl(option: int, *values: int) -> int:
    words = [ctypes.c_ulong(v) for v in (*values, 0, 0, 0, 0)[:4]]
    done: int = libc.prctl(option, *words)
    return done


def drop_bounding() -> None:
    """Empty the set of capabilities that a set-uid program could bring back."""
    number = 0
    while prctl(PR_CAPBSET_DROP, number) == 0:
        number += 1
    if ctypes.get_errno() != errno.EINVAL:  # what says that there is no capability of this number
        check(-1, "capability bounding set")


def drop_capabilities() -> None:
    """Give up every capability for good."""
    check(libc.capset(struct.pack("<Ii", 0x20080522, 0), struct.pack("<6I", *[0] * 6)), "capset")
    check(prctl(PR_SET_NO_NEW_PRIVS, 1), "no_new_privs")


def filter_calls(program: bytes) -> None:
    """Install a seccomp filter on this process and all that come from it."""
    rows = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(rows)))
    check(prctl(PR_SET_SECCOMP, 2, ctypes.addressof(head)), "seccomp")
