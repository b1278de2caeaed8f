"""Tell whether EC2 takes this spot box back: a line of JSON at each change, as ``devboxd/model/reclaim.py`` has it.

Run by the daemon over a bridge, for as long as that is up. Where the collector of root looks for notices
(``activity.py``), what it knows is told; else this looks by itself, and does what is due. It ends where the box is no spot box.
"""

import json
import os
import sys
import time
from typing import TYPE_CHECKING

from devboxd.boxside.programs.parts.reclaimed import LOOK_EVERY, ROOTS, Keeper, is_kept, is_ours, note_at
from devboxd.model.reclaim import SPOT, unknown

if TYPE_CHECKING:
    from typing import Any


class Teller:
    """Prints what is known whenever that is another."""

    def __init__(self) -> None:
        self.last = ""

    def tell(self, known: "dict[str, Any]") -> None:
        """Print it, unless it is what was printed last; nobody may be there to read it."""
        line = json.dumps({name: known.get(name) for name in unknown() if name != "missing"})
        if line == self.last:
            return
        self.last = line
        try:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except OSError:
            pass  # what is due is done all the same


def follow(folder: str) -> None:
    """Tell it until the box is known to be of another kind."""
    path, teller = os.path.join(folder, "reclaim.json"), Teller()
    with open(os.path.join(folder, "reclaim.lock"), "w") as lock:
        keeper, adopted = None, None  # type: Keeper | None, float | None
        while True:
            of_root = note_at(ROOTS) if os.path.exists(ROOTS) and os.stat(ROOTS).st_uid == 0 else {}
            if keeper is None and is_ours(lock.fileno()):
                keeper = Keeper(path, os.path.expanduser("~"), say=teller.tell)
            if keeper is not None and of_root.get("notice") and of_root.get("until") != adopted:
                adopted = of_root.get("until")
                keeper.known = dict(of_root)  # what was done for it is not done again
            if is_kept(of_root) or keeper is None:
                known = of_root if is_kept(of_root) else note_at(path)
                if known:
                    teller.tell(known)
                life = known.get("life")
            else:
                if keeper.is_spot():
                    keeper.look()
                teller.tell(keeper.known)
                life = keeper.known["life"]
            if life not in (None, SPOT):
                return
            time.sleep(LOOK_EVERY)


os.umask(0o077)
own = os.path.expanduser("~/.devbox/idle")
os.makedirs(own, 0o700, exist_ok=True)
follow(own)
