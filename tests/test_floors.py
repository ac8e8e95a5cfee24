"""The floors of the house: who may import whom, and that nobody imports in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mechunlearn"
FLOORS = {
    **dict.fromkeys(("errors", "checking", "frames", "naming", "reading", "undoing"), 0),
    **dict.fromkeys(("models", "facts", "sites", "site_names", "site_table", "runs", "training", "showing"), 1),
    "evaluation": 2,
    **dict.fromkeys(("dissection", "unlearning", "attacks", "organism"), 3),
    "diagnostics": 4,
    **dict.fromkeys(("verdict", "sweeps"), 5),
    "reporting": 6,
    "cli": 7,
    "__main__": 8,
}
APART = (3, 5)  # floors whose rooms do not import each other: the verbs, and what is put on top of them


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Dotted names below the package ("facts.tokens"; a room's own file is "facts"), with their files."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts:
            found[".".join(parts)] = path
    return found


def imports(name: str, path: Path, source: str, known: Iterable[str]) -> Iterator[str]:
    """The modules of the package that a module imports when it is imported or used, types aside."""
    known = set(known)
    tree = ast.parse(source)
    for_types = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "mechunlearn"]
            yield from (dotted.removeprefix("mechunlearn").removeprefix(".") for dotted in names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, *((node.module or "").split(".") if node.module else [])])
            elif (node.module or "").split(".")[0] == "mechunlearn":
                base = (node.module or "").removeprefix("mechunlearn").removeprefix(".")
            else:
                continue
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix(".")
                yield inner if inner in known else base


def trespasses(name: str, imported: str) -> str | None:
    """What is wrong with this import, if anything."""
    room, other = name.split(".")[0], imported.split(".")[0]
    if room == other:
        return None
    if other not in FLOORS:
        return f"{name} imports the package's own front ({imported or 'mechunlearn'})"
    if FLOORS[other] > FLOORS[room]:
        return f"{name} (floor {FLOORS[room]}) imports {imported} (floor {FLOORS[other]})"
    if FLOORS[other] == FLOORS[room] in APART:
        return f"{name} imports {imported}: rooms of floor {FLOORS[room]} do not import each other"
    return None


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    """Some names that import each other in a circle, or None."""
    finished: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str] | None:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in finished:
            return None
        for other in sorted(graph.get(name, ())):
            if found := walk(other, [*path, name]):
                return found
        finished.add(name)
        return None

    for name in sorted(graph):
        if found := walk(name, []):
            return found
    return None


def house() -> dict[str, set[str]]:
    known = modules()
    return {name: set(imports(name, path, path.read_text(encoding="utf-8"), known)) for name, path in known.items()}


def test_every_room_has_a_floor() -> None:
    assert {name.split(".")[0] for name in modules()} <= set(FLOORS)


def test_rooms_import_only_from_floors_below() -> None:
    wrong = [found for name, others in house().items() for other in others if (found := trespasses(name, other))]
    assert wrong == []


def test_no_module_imports_in_a_circle() -> None:
    # A room's __init__ gathers its modules; a module that imports a name from its own room's front would be a circle.
    assert circle(house()) is None


def test_no_room_imports_in_a_circle() -> None:
    rooms: dict[str, set[str]] = {}
    for name, others in house().items():
        room = name.split(".")[0]
        rooms.setdefault(room, set()).update({other.split(".")[0] for other in others} - {room})
    assert circle(rooms) is None


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("facts.tokens", "from ..evaluation import recall", "floor 1"),
        ("facts.tokens", "import mechunlearn.cli", "floor 1"),
        ("facts.tokens", "def f():\n    from mechunlearn.reporting import report", "floor 1"),
        ("dissection.plots", "from ..unlearning.npo import NPO", "each other"),
        ("facts.tokens", "from .. import load", "front"),
        ("facts.tokens", "from ..errors import UserError", None),
        ("facts.tokens", "from .fact import Fact", None),
        ("sites", "from .models import slots", None),
        ("facts.tokens", "if TYPE_CHECKING:\n    from ..cli import app", None),
        ("facts.tokens", "import torch", None),
    ],
)
def test_the_check_itself(name: str, source: str, complaint: str | None) -> None:
    known = {name, "errors", "evaluation", "cli", "reporting", "unlearning.npo", "facts.fact", "models"}
    found = [trespasses(name, other) for other in imports(name, Path("x.py"), source, known)]
    if complaint is None:
        assert not any(found)
    else:
        assert any(complaint in (text or "") for text in found)


def test_circles_are_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) is None
