"""Bad edits of the lifecycle, each of which the tests must see fail: run in a process of its own, by name.

python -m tests.lifecycle.mutants NAME        exits with 0 when it was caught, and says by what
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
SEEDS: Final = 120  # histories that a mutant may survive, at most


class Edit(NamedTuple):
    """One edit of one file; ``old`` must be there."""

    file: str
    old: str
    new: str


MUTANTS: Final[dict[str, tuple[Edit, ...]]] = {
    # The eight of the first simulation.
    "image-while-stopping": (
        Edit("model/save.py", "            return _stopping(seen, box)", "            return _save_stopped(seen, box)"),
    ),
    "fixed-name": (
        Edit("model/project.py", 'return f"devbox/{project.name}/{project.uid}-{save}"', 'return f"devbox/{project.name}"'),
    ),
    "commit-pending": (
        Edit("model/save.py", 'if image.state in ("pending", "transient"):', 'if image.state == "transient":'),
        Edit("model/save.py", 'if image.state != "available":\n        return again', 'if image.state not in ("available", "pending"):\n        return again'),
        Edit("model/commit.py", "if one.id == named and one.save == number", "if one.save == number"),
    ),
    "no-stamp-check": (
        Edit("model/release.py", "        and head.stamp == box.launched\n", ""),
        Edit("model/release.py", "        seen.project.clean\n        and head", "        head"),
        Edit("model/release.py", "    if is_restarted(seen, box):", "    if is_restarted(seen, box) and box.is_up:"),
    ),
    "no-reaper": (Edit("model/retention.py", "    for box in surplus:\n        if box.is_alive", "    for box in surplus:\n        if False"),),
    "row-not-read-again": (
        Edit(
            "control/lifecycle/reconcile.py",
            "        if row is None or row.version != known.versions.get(row.key):\n",
            "        if row is None:\n",
        ),
    ),
    "absence-is-death": (
        Edit("model/rescue.py", "if waited < LAG or not is_adrift(seen, is_late=waited >= HOPELESS_AFTER):", "if False:"),
    ),
    "dies-with-the-box": (
        Edit("aws/ec2.py", '**_carried(run, disk),\n                    "DeleteOnTermination": False', '**_carried(run, disk),\n                    "DeleteOnTermination": True'),
        Edit("model/running.py", "for one in box.attached if one.dies_with_box", "for one in box.attached if False"),
    ),
    # And more.
    "one-phase-deletion": (
        Edit("model/retention.py", "if one.garbage is None):\n", "if False):\n"),
        Edit("model/retention.py", "return (one.garbage or at) + (0.0 if is_copy else grace)", "return one.garbage or 0.0"),
    ),
    "volumes-of-the-open-run": (
        Edit("model/retention.py", "read.run > seen.project.closed", "read.run > seen.project.run"),
    ),
    "images-of-the-current-save": (
        Edit("model/retention.py", " and save not in (project.save, project.snap)", ""),
    ),
    "every-token-is-surplus": (Edit("model/seen.py", "(read.run, read.attempt) < (project.run, project.attempt)", "True"),),
    "bind-any-token": (
        Edit("model/launch.py", "if one.token == project.token), None)", "if one.token), None)"),
    ),
    "one-token-for-all-attempts": (
        Edit("model/project.py", 'return f"{self.uid}-{self.run}-{self.attempt}"', 'return f"{self.uid}-{self.run}-0"'),
    ),
    "attempt-not-written": (
        Edit("model/launch.py", "replace(project, attempt=following, at=place, reason=why)", "replace(project, reason=why)"),
    ),
    "closed-without-a-generation": (
        Edit("model/release.py", "    if not is_saved(seen, box):\n        return begin_rescue(seen, box)\n", ""),
    ),
    "save-number-used-twice": (
        Edit("model/change.py", "    number = project.saves + 1\n    changed = replace(project, saves=number, save=number, failures=failures)", "    number = project.saves\n    changed = replace(project, saves=number, save=number, failures=failures)"),
    ),
    "restart-not-noticed": (
        Edit("model/change.py", "return box.launched is not None and (known is None or box.launched > known)", "return False"),
    ),
    "old-views-believed": (Edit("model/pipeline.py", "box.launched < known", "False"),),
    "rescue-of-some": (
        Edit("model/rescue.py", '            return f"the volume of {disk.device} is not there"\n', "            continue\n"),
        Edit("model/rescue.py", "tuple(placed[disk.device] for disk in disks) if placed", "tuple(placed.values()) if placed"),
    ),
    "no-ena": (Edit("aws/ec2.py", '        "EnaSupport": bool(boot.ena),\n', ""),),
    "reboots-for-an-image": (Edit("aws/ec2.py", '        "NoReboot": True,\n', ""),),
    "untagged-volumes": (Edit("aws/ec2.py", 'call.tags, "instance", "volume", "network-interface"', 'call.tags, "instance"'),),
    "no-protection-after-all": (Edit("model/running.py", "        return Protect(box.id)\n", "        pass\n"),),
    "head-not-looked-at": (
        Edit("model/retention.py", "    return seen.is_proven(seen.head)\n\n\ndef is_saved_volume", "    return True\n\n\ndef is_saved_volume"),
        Edit("model/seen.py", "return available and all(", "return True or all("),
    ),
    "detached-is-garbage": (
        Edit("model/retention.py", "and not is_saved_volume(seen, volume.id, read.run)", "and False"),
    ),
    "a-start-is-a-wish": (
        Edit("model/change.py", "project.want if _is_no_wish(project, box) else Want.UP", "Want.UP"),
    ),
    "start-whatever-is-wanted": (Edit("model/launch.py", "if not is_to_start(project):", "if False:"),),
    "moved-is-waited-for": (
        Edit("model/rescue.py", "if volume is not None and _is_elsewhere(volume, seen.project.instance):", "if False:"),
    ),
    "nobody-is-told": (
        Edit("model/rescue.py", "if waited >= NOTHING_LEFT_AFTER and", "if False and"),
    ),
    "retire-what-is-launched-from": (
        Edit("model/retention.py", "seen.at) | needed(", "seen.at) - {project.head} | needed("),
        Edit("model/project.py", "    found = {project.head, project.rollback}\n", "    found = set()\n"),
    ),
    # An old root beside the new one.
    "old-root-is-a-volume-of-the-box": (Edit("model/change.py", "if by_id[one.volume].rebase is None]", "]"),),
    "boots-with-two-roots": (
        Edit("model/launch.py", "    if (step := rebase.off(seen, box)) is not None:\n        return step\n", ""),
        Edit("model/save.py", "    if (step := rebase.off(seen, box)) is not None:\n        return step\n", ""),
        Edit("model/save.py", "    if (step := rebase.off_before_stop(seen, box)) is not None:\n        return step\n", ""),
        Edit("model/retention.py", "    last = rebase.stray(seen)\n", "    last = None\n"),
    ),
    "imaged-with-the-old-root": (
        Edit("model/save.py", "    if (step := rebase.off(seen, box)) is not None:\n        return step\n", ""),
        Edit("model/commit.py", "if foreign := strange(run, image):", "if foreign := []:"),
    ),
    "old-root-is-never-swept": (
        Edit("model/retention.py", "return not rebase.is_needed(seen, volume)", "return False"),
    ),
    "one-token-for-all-copies": (
        Edit("model/rebase.py", "-{project.saves}-{rebase.tries if rebase else 0}", "-0"),
    ),
    "way-back-is-retired": (
        Edit("model/rebase.py", "pins=head.pins if KEPT in head.pins else (*head.pins, KEPT),", "pins=head.pins,"),
        Edit("model/project.py", "        found.add(project.rebase.source)\n", "        pass\n"),
    ),
    "homes-of-what-was-saved-last": (
        Edit("model/rebase.py", "source = seen.generation(rebase.source)", "source = seen.head"),
    ),
}  # fmt: skip


class _Finder(importlib.abc.MetaPathFinder):
    """Gives edited source to those who import."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self._sources: dict[str, str] = {}
        for edit in edits:
            path = ROOT / "devboxd" / edit.file
            name = "devboxd." + edit.file.removesuffix(".py").replace("/", ".")
            source = self._sources.get(name) or path.read_text("utf-8")
            if edit.old not in source:
                raise SystemExit(f"{edit.file} has no {edit.old!r} any more: renew the mutant")
            self._sources[name] = source.replace(edit.old, edit.new)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._sources:
            return None
        file = str(ROOT / (fullname.replace(".", "/") + ".py"))
        return importlib.util.spec_from_file_location(fullname, file, loader=_Loader(self, fullname, file))

    def source(self, name: str) -> str:
        return self._sources[name]


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, finder: _Finder, fullname: str, path: str) -> None:
        super().__init__(fullname, path)
        self._finder = finder

    def get_code(self, fullname: str) -> object:  # type: ignore[override]  # never a cached one
        return compile(self._finder.source(fullname), self.path, "exec")


def caught_by(name: str) -> str:
    """Say what catches a mutant; empty: nothing does."""
    sys.meta_path.insert(0, _Finder(MUTANTS[name]))
    from tests.lifecycle import playing, swarm, test_crashes, test_rebase  # only now: with the edit

    try:
        changes = test_crashes.run({}).mutations
        for number in range(1, changes + 1, 3):
            test_crashes.run({number: test_crashes.DEADLY[number % len(test_crashes.DEADLY)]})
        for one in playing.ALL:
            playing.play(one)
        for script in test_rebase.SCRIPTS.values():
            test_rebase.play({}, script=script)
    except Exception as error:  # noqa: BLE001 - however it shows
        return f"the script: {error}".splitlines()[0]
    for seed in range(SEEDS):
        try:
            swarm.run(seed)
        except Exception as error:  # noqa: BLE001 - however it shows
            return f"seed {seed}: {error}".splitlines()[0]
    return ""


def main() -> int:
    found = caught_by(sys.argv[1])
    print(found or "it survived")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
