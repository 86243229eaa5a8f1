"""The jail: makes namespaces, a root folder of almost nothing and limits, then starts the program and waits.

Run by ``run.py`` under ``python -I -S``, with the file numbers of a plan (JSON) and of a report (JSON lines).
Three processes: the launcher stays outside; the first process inside reaps and cannot be killed from there, and with
its end the kernel kills all that is left; the program is its child. Standard library only.
"""

from __future__ import annotations

import base64
import json
import os
import platform
import resource
import signal
from typing import Any

from bench.sandbox import kernel as k
from bench.sandbox.syscalls import program

FIRST_UID = 2_000_000_000  # nobody's; the launcher's process id is added, so that no two sandboxes share one
INSIDE = 1000
BOX = "/box"


def main(plan_fd: int, report_fd: int) -> None:
    """Run the plan; the report says how it ended, or why it could not begin."""
    with open(plan_fd) as f:
        plan = json.load(f)
    os.set_inheritable(report_fd, False)  # the program must not be able to report for itself
    k.prctl(k.PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        report = WAYS[plan["way"]](plan, report_fd)
    except (OSError, KeyError) as e:
        report = {"failed": f"{type(e).__name__}: {e}"}
    if report is not None:
        os.write(report_fd, json.dumps(report).encode() + b"\n")


def walled(plan: dict[str, Any], report_fd: int) -> dict[str, Any] | None:
    """Namespaces, then the first process inside; that one reports by itself if it gets so far."""
    rooms = k.NEWNS | k.NEWPID | k.NEWNET | k.NEWIPC | k.NEWUTS | k.NEWCGROUP
    uid = become_owner(rooms)
    with open("/proc/self/oom_score_adj", "w") as f:
        f.write("1000")  # if memory runs out all the same, this goes first
    inner = os.fork()
    if inner == 0:
        try:
            build(plan)
            leave_privileges(uid)
            report = attend(plan)
        except (OSError, KeyError) as e:
            report = {"failed": f"{type(e).__name__}: {e}"}
        os.write(report_fd, json.dumps(report).encode() + b"\n")
        os._exit(0)
    os.waitpid(inner, 0)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"cpu_s": used.ru_utime + used.ru_stime}


def become_owner(rooms: int) -> int | None:
    """Enter new namespaces: as root with the right to, and the program gets a user id of its own (returned);
    as anybody else within a user namespace (None)."""
    if os.geteuid() == 0:
        try:
            with open("/proc/self/uid_map") as f:
                inside, _, count = map(int, f.readline().split())
            uid = FIRST_UID + os.getpid()
            if inside == 0 and count > uid:
                k.unshare(rooms)
                return uid
        except PermissionError:
            pass
    uid, gid = os.geteuid(), os.getegid()
    k.unshare(k.NEWUSER | rooms)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{INSIDE} {uid} 1"), ("gid_map", f"{INSIDE} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as f:
            f.write(text)
    return None


def build(plan: dict[str, Any]) -> None:
    """The root folder: what the plan binds, read-only; a box of bounded size; five devices. Then it is the root."""
    k.mount("none", "/", "", k.MS_REC | k.MS_PRIVATE)
    root = plan["root"]
    k.mount("none", root, "tmpfs", k.MS_NOSUID | k.MS_NODEV, "size=1m,nr_inodes=1k,mode=755")
    for source, target in plan["binds"]:
        bind(source, root + target)
    for source, target in plan["links"]:
        os.symlink(source, root + target)
    for target in plan["hidden"]:
        k.mount("none", root + target, "tmpfs", k.MS_RDONLY | k.MS_NOSUID | k.MS_NODEV, "size=4k,mode=755")
    os.makedirs(f"{root}/dev")
    for name in plan["devices"]:
        bind(f"/dev/{name}", f"{root}/dev/{name}", devices=True)
    os.mkdir(root + BOX)
    bounds = f"size={plan['disk']},nr_inodes=4k,mode=777"
    k.mount("none", root + BOX, "tmpfs", k.MS_NOSUID | k.MS_NODEV, bounds)
    write_files(plan, root + BOX)
    os.symlink(BOX, f"{root}/tmp")
    k.mount("none", root, "", k.MS_BIND | k.MS_RDONLY | k.MS_NOSUID | k.MS_NODEV | 32)  # 32: remount
    k.pivot(root)
    os.umask(0o022)


def bind(source: str, target: str, *, devices: bool = False) -> None:
    """Bind a file or folder, made where it is missing, so that it cannot be written to."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "w").close()
    k.mount(source, target, "", k.MS_BIND | k.MS_REC)
    k.lock(target, writable=devices, devices=devices)


def write_files(plan: dict[str, Any], folder: str) -> None:
    """The program's files: name -> base64, and whether it may be executed."""
    for name, (text, executable) in plan["files"].items():
        path = os.path.join(folder, name)
        with open(path, "wb") as f:
            f.write(base64.b64decode(text))
        os.chmod(path, 0o755 if executable else 0o644)


def leave_privileges(uid: int | None) -> None:
    """From here on nobody in particular, for good; dies with the launcher; not to be traced."""
    k.drop_bounding()
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    k.drop_capabilities()
    k.prctl(k.PR_SET_PDEATHSIG, signal.SIGKILL)
    k.prctl(k.PR_SET_DUMPABLE, 0)


def attend(plan: dict[str, Any]) -> dict[str, Any]:
    """Start the program and reap all that ends, until the program itself does."""
    child = os.fork()
    if child == 0:
        start(plan, BOX, guarded=True)
    return ended(child)


def ended(child: int) -> dict[str, Any]:
    """Reap until the program ends: how it did, and the CPU seconds of all that was reaped."""
    pid = 0
    while pid != child:
        pid, status = os.wait()
    code = os.waitstatus_to_exitcode(status)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"exit" if code >= 0 else "signal": abs(code), "cpu_s": used.ru_utime + used.ru_stime}


def start(plan: dict[str, Any], folder: str, *, guarded: bool) -> None:
    """Become the program; never returns. Exit status 127: it could not be started."""
    try:
        os.setsid()
        os.chdir(folder)
        for name in (signal.SIGPIPE, signal.SIGINT, signal.SIGXFSZ):  # what Python sets for itself
            signal.signal(name, signal.SIG_DFL)
        for what, wanted in plan["rlimits"].items():
            number = getattr(resource, what)
            hard = resource.getrlimit(number)[1]
            value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(number, (value, value))
        if guarded:
            k.filter_calls(program(platform.machine()))
        os.execve(plan["argv"][0], plan["argv"], plan["environment"])
    except (OSError, KeyError, ValueError) as e:
        os.write(2, f"cannot start {plan['argv'][0]}: {e}\n".encode())
    os._exit(127)


def walled_by_bwrap(plan: dict[str, Any], report_fd: int) -> dict[str, Any]:
    """This is the first process inside already; bubblewrap made the rest."""
    write_files(plan, BOX)
    k.drop_capabilities()
    k.prctl(k.PR_SET_DUMPABLE, 0)
    return attend(plan)


def unwalled(plan: dict[str, Any], report_fd: int) -> dict[str, Any]:
    """Without walls, because somebody said so: limits, a folder, and an end of all children that can be found."""
    k.prctl(k.PR_SET_CHILD_SUBREAPER, 1)
    write_files(plan, plan["root"])
    child = os.fork()
    if child == 0:
        start(plan, plan["root"], guarded=False)
    report = ended(child)
    end_children()
    return report


def end_children() -> None:
    """Kill and reap what the program left behind; orphans come to this process."""
    own = os.getpid()
    while True:
        with open(f"/proc/{own}/task/{own}/children") as f:
            left = [int(pid) for pid in f.read().split()]
        if not left:
            return
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


WAYS = {"namespaces": walled, "bwrap": walled_by_bwrap, "none": unwalled}
