"""The contract with sglang 0.5.23: every hook's target is what it was written for, and a change is named.

Run in processes of their own with the rig's environment: sglang and its stand-ins may not enter this one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from pipo.sglang.rig import environment
from pipo.sglang.table import HOOKS, RIG_HOOKS, VERSION

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sglang-contract")]


def python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, env=environment(os.environ), capture_output=True, text=True, timeout=180)


def test_every_hooked_signature_is_the_published_one() -> None:
    done = python(
        """
        from pipo.sglang.plugin import changed, installed
        from pipo.sglang.table import HOOKS, RIG_HOOKS
        import sgl_kernel.mamba
        print(installed())
        for hook in HOOKS + RIG_HOOKS:
            print(changed(hook) or "same")
        """
    )
    assert done.returncode == 0, done.stderr[-2000:]
    version, *rest = done.stdout.split("\n")[:-1]
    assert version == VERSION
    assert rest == ["same"] * len(HOOKS + RIG_HOOKS)


def test_a_changed_signature_ends_the_process_and_is_named() -> None:
    done = python(
        """
        import sglang.srt.managers.schedule_batch as module
        module.Req.update_finish_state = lambda self, new_accepted_len, something_new: None
        from sglang.srt.plugins import load_plugins
        load_plugins()
        print("went on")
        """
    )
    assert done.returncode != 0 and "went on" not in done.stdout
    assert "Req.update_finish_state takes (self, new_accepted_len, something_new)" in done.stderr


def test_a_hook_that_does_not_take_ends_the_process_and_is_named() -> None:
    done = python(
        """
        from sglang.srt.plugins.hook_registry import HookRegistry
        kept = HookRegistry._apply_target.__func__
        def fails(cls, target, hooks):
            if target.endswith("ModelRunner.sample"):
                raise RuntimeError("planted")
            return kept(cls, target, hooks)
        HookRegistry._apply_target = classmethod(fails)
        from sglang.srt.plugins import load_plugins
        load_plugins()
        print("went on")
        """
    )
    assert done.returncode != 0 and "went on" not in done.stdout
    assert "the hook on sglang.srt.model_executor.model_runner.ModelRunner.sample did not take" in done.stderr


def test_another_version_is_left_alone() -> None:
    done = python(
        """
        import pipo.sglang.plugin as plugin
        plugin.installed = lambda: "0.5.24"
        from sglang.srt.plugins.hook_registry import HookRegistry
        plugin.activate()
        print(len(HookRegistry._hooks))
        """
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == "0" and "0.5.24 is installed" in done.stderr


def test_the_table_says_why_for_each_hook_and_names_each_target_once() -> None:
    hooks = HOOKS + RIG_HOOKS
    assert all(h.why and h.without and h.parameters for h in hooks)
    assert len({h.target for h in hooks}) == len(hooks)
    assert all(h.target.startswith("sglang.") for h in hooks)
