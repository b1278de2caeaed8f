"""The user's hooks that may keep a box, asked as ``may_stop.sh`` asks them: by the user, one after the other."""

import os
import time

from devboxd.boxside.programs.parts.hooks import HOOK_MOST, HOOK_NAME_MOST, hooks_of, run_hook

VETO = 75  # exit status of one that wants the box to stay


def keeper(home: str, user: str, seconds: float) -> str:
    """The first hook that wants the box to stay, as ``may_stop.sh`` asks them; empty: none does. Who runs them: see ``run_hooks``."""
    end = time.monotonic() + seconds
    for hook in hooks_of(home, "may-stop.d"):
        left = min(HOOK_MOST, end - time.monotonic())
        if left > 0 and run_hook(hook, home, user, left)[0] == VETO:
            return os.path.basename(hook)[:HOOK_NAME_MOST]
    return ""
