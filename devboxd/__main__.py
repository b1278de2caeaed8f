"""``python -m devboxd``: run the daemon in the foreground."""

from __future__ import annotations

import sys


def entry() -> int:
    """Console script. Heavy imports wait until the words on the command line are known to be good."""
    words = sys.argv[1:]
    if words in (["--version"], ["-V"]):
        from devboxd import __version__

        sys.stdout.write(f"devboxd {__version__}\n")
        return 0
    if words[:1] == ["reconcile"]:
        from devboxd.headless import reconcile

        return reconcile(words[1:])
    if words:
        sys.stderr.write(
            "usage: devboxd [--version]\n"
            "       devboxd reconcile [--once] [--project NAME] [--json] ...\n"
            "Runs the daemon in the foreground. Settings come from the environment and from config.toml;\n"
            "devboxctl starts, stops and installs it: see devboxctl daemon --help.\n"
            "reconcile goes on with the projects without a daemon: see devboxd reconcile --help.\n"
        )
        return 0 if words in (["--help"], ["-h"]) else 2
    from devboxd.main import main

    return main()


if __name__ == "__main__":
    sys.exit(entry())
