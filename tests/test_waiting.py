"""Who waits in a loop lets others run: what it loops over must not be theirs to change meanwhile."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VIEWS = {"items", "keys", "values"}
LAZY = {"enumerate", "filter", "iter", "map", "reversed", "zip"}  # they make no copy

# Never changed after it was made.
FIXED = {
    "devboxd/net/listen.py": {"self.sockets"},
    "devboxd/simulator/agent/port.py": {"self._addresses"},
}


def waits(nodes: Iterable[ast.AST]) -> bool:
    """Whether others may run while this does: at an await, and at a yield, whose taker may wait."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith | ast.Yield | ast.YieldFrom):
            return True
        if isinstance(node, ast.comprehension) and node.is_async:
            return True
        if waits(ast.iter_child_nodes(node)):
            return True
    return False


def is_held(what: ast.expr) -> bool:
    """Whether this is something that an object has, or a view of it, and no copy."""
    if isinstance(what, ast.Call):
        function = what.func
        if isinstance(function, ast.Name) and function.id in LAZY:
            return any(is_held(argument) for argument in what.args)
        return isinstance(function, ast.Attribute) and function.attr in VIEWS and is_held(function.value)
    while isinstance(what, ast.Attribute):
        what = what.value
        if isinstance(what, ast.Name):
            return what.id == "self"
    return False


def loops(function: ast.AsyncFunctionDef) -> Iterator[tuple[ast.expr, list[ast.AST]]]:
    """What each loop goes through, and what is done for each of it."""
    for node in ast.walk(function):
        if isinstance(node, ast.For):
            yield node.iter, [*node.body]
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            made = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            for at, one in enumerate(node.generators):
                yield one.iter, [*made, *one.ifs, *node.generators[at + 1 :]]


def found(text: str) -> set[tuple[int, str]]:
    """Lines with such a loop, and what it goes through."""
    return {
        (over.lineno, ast.unparse(over))
        for function in ast.walk(ast.parse(text))
        if isinstance(function, ast.AsyncFunctionDef)
        for over, body in loops(function)
        if is_held(over) and waits(body)
    }


@pytest.mark.parametrize("package", ["devboxd", "devboxctl"])
def test_no_loop_that_waits_goes_through_what_others_may_change(package: str) -> None:
    """``RuntimeError: dictionary changed size during iteration``, or one that is left out: take a ``list`` of it."""
    problems = [
        f"{name}:{line}: {over}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, over in sorted(found(path.read_text("utf-8")))
        if over not in FIXED.get(name := path.relative_to(ROOT).as_posix(), ())
    ]
    assert not problems


@pytest.mark.parametrize(
    "line",
    [
        "[await one.stop() for one in self._all.values()]",
        "{one: await one.look() for one in self._all}",
        "[one for one in self._all.values() if await one.look()]",
        "[two for one in self.a.b.items() for two in await one.all()]",
        "for one in self._all:\n  if one:\n   await one.stop()",
        "for at, one in enumerate(self._all):\n  async with one:\n   pass",
        "for one in self._all:\n  yield one",
    ],
)
def test_such_a_loop_is_found(line: str) -> None:
    assert len(found(f"async def run(self):\n {line}\n")) == 1


@pytest.mark.parametrize(
    "line",
    [
        "[await one.stop() for one in list(self._all.values())]",
        "for one in sorted(self._all):\n  await one.stop()",
        "for one in self._all:\n  one.stop()",
        "for one in self._known():\n  await one.stop()",
        "await gather(*(one.stop() for one in self._all))",
        "[one for one in await self.all()]",
    ],
)
def test_one_that_does_not_wait_or_has_a_copy_is_none(line: str) -> None:
    assert not found(f"async def run(self):\n {line}\n")
