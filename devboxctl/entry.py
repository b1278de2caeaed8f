"""Where ``devboxctl`` starts. Commands that ssh, a prompt or a key waits for skip the command framework.

Importing typer costs some 50 ms more than the whole of ``devboxctl proxy`` needs, so ``proxy``, ``attach``,
``exec`` and completion have their own small parser. Whatever that parser does not know at once (``--help``, a
misspelt option, a missing BOX) goes to typer, which says the same things better.
"""

import os
import sys


def main() -> None:
    """Run the command line in ``sys.argv`` and exit with its status."""
    isolate()
    sys.exit(run(sys.argv[1:]))


def isolate() -> None:
    """Keep the environment's ideas about Python and open files away from us.

    PYTHONPATH and the folder of the script come before the standard library: a ``socket.py`` of somebody's
    project there would be ours. A standard descriptor that is closed would be given to the next connection,
    and what we print would go there.
    """
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    strange = {_absolute(part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part}
    if not sys.flags.safe_path:
        strange.add(_absolute(sys.path[0]))
    sys.path[:] = [part for part in sys.path if _absolute(part) not in strange - {root}]
    if sys.warnoptions:  # PYTHONWARNINGS=error is meant for somebody else's tests
        import warnings

        warnings.simplefilter("ignore")
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)  # the lowest that is free; 1 stays one that cannot be written to


def _absolute(part: str) -> str:
    """Where an entry of the path leads; itself where that is below a folder that no longer exists."""
    try:
        return os.path.abspath(part)
    except OSError:
        return part


def run(words: list[str]) -> int:
    """Run one command line. No exception but ``SystemExit`` leaves this function."""
    try:
        status = _fast(words[0], words[1:]) if words else None
        if status is None:
            from devboxctl.app import run as run_app

            status = run_app(words)
        return status
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001  a user never sees a traceback; DEVBOX_DEBUG=1 shows it
        from devboxctl.fast.reply import show_unexpected

        return show_unexpected(error)


def _fast(command: str, words: list[str]) -> int | None:
    if command == "proxy":
        from devboxctl.fast import proxy

        return proxy.main(words)
    if command == "attach":
        from devboxctl.fast import attach

        return attach.main(words)
    if command == "exec":
        from devboxctl.fast import execute

        return execute.main(words)
    if command == "ls":
        from devboxctl.fast import boxes

        return boxes.main(words)
    if command == "_complete":
        from devboxctl.fast import complete

        return complete.main(words)
    return None


if __name__ == "__main__":
    main()
