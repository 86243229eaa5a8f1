"""The filter of system calls inside the sandbox: what a solution of a puzzle never needs and an attack might.

A small BPF program for x86_64 and aarch64, after linux/filter.h and seccomp(2). Runs in the jail: standard library.
"""

from __future__ import annotations

import struct

EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97
KILL, ALLOW, ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
LOAD, AND, JUMP_EQ, JUMP_GE, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
OFFSET_NR, OFFSET_ARCH, OFFSET_ARG0 = 0, 4, 16
NAMESPACES = 0x7E020000  # all CLONE_NEW* flags that clone knows
FAMILIES = (1, 2, 10)  # unix, inet, inet6; not vsock, netlink, alg, packet: those are not all fenced in by namespaces
SHARED = (424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442, 443, 447, 448, 467)  # one number everywhere

# audit arch, socket, clone, then what is refused: ptrace, process_vm_*, kcmp, unshare, setns, mounts, chroot, keys,
# bpf, perf, userfaultfd, memfd and System V memory (not bounded by the box), modules, clocks, file handles, personality
TABLES = {
    "x86_64": (0xC000003E, 41, 56, (
        101, 310, 311, 312, 272, 308, 165, 166, 155, 161, 248, 249, 250, 321, 298, 323, 319, 29, 64, 68, 175, 176, 313,
        246, 320, 169, 167, 168, 163, 103, 164, 227, 305, 303, 304, 135, 300, 179, 256, 279, 212, 153, 139, 172, 173,
        240, 237, 238,
    )),
    "aarch64": (0xC00000B7, 198, 220, (
        117, 270, 271, 272, 97, 268, 40, 39, 41, 51, 217, 218, 219, 280, 241, 282, 279, 194, 190, 186, 105, 106, 273,
        104, 294, 142, 224, 225, 89, 116, 170, 112, 266, 264, 265, 92, 262, 60, 238, 239, 18, 58, 180, 235, 237,
    )),
}  # fmt: skip
CLONE3 = 435


def program(machine: str) -> bytes:
    """The filter as an array of ``struct sock_filter``. Raises KeyError for a machine that is not in the table."""
    arch, socket, clone, refused = TABLES[machine]
    rows: list[tuple[int, int, int, int]] = []

    def add(code: int, value: int, yes: int = 0, no: int = 0) -> None:
        rows.append((code, yes, no, value))

    add(LOAD, OFFSET_ARCH)
    add(JUMP_EQ, arch, 1, 0)
    add(RETURN, KILL)
    add(LOAD, OFFSET_NR)
    if machine == "x86_64":
        add(JUMP_GE, 0x40000000, 0, 1)  # the x32 numbers
        add(RETURN, ERRNO | EPERM)
    for number in sorted({*refused, *SHARED}):
        add(JUMP_EQ, number, 0, 1)
        add(RETURN, ERRNO | EPERM)
    add(JUMP_EQ, CLONE3, 0, 1)
    add(RETURN, ERRNO | ENOSYS)  # its flags lie in memory, where a filter cannot look; libc falls back to clone
    add(JUMP_EQ, clone, 0, 4)
    add(LOAD, OFFSET_ARG0)
    add(AND, NAMESPACES)
    add(JUMP_EQ, 0, 4 + len(FAMILIES), 0)
    add(RETURN, ERRNO | EPERM)
    add(JUMP_EQ, socket, 0, 2 + len(FAMILIES))
    add(LOAD, OFFSET_ARG0)
    for i, family in enumerate(FAMILIES):
        add(JUMP_EQ, family, len(FAMILIES) - i, 0)
    add(RETURN, ERRNO | EAFNOSUPPORT)
    add(RETURN, ALLOW)
    return b"".join(struct.pack("<HBBI", *row) for row in rows)
