"""The house, as a test: which room may know which, and what each may bring in from outside."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("supportvoice", "calls", "agents", "bridge")  # from the roof down; imports go to the right only
PURE = (
    *("core", "actions", "agenda", "agent_turn", "barge_in", "dead_air", "doubt", "drift", "figures", "heard", "keypad", "lately"),
    *("lateness", "longest", "manners", "moments", "not_heard", "parked", "pulse", "rules", "stuck", "uplink", "way_out"),
    *("voice", "audio", "pcm", "splice", "tone", "twilio_media", "vapi_messages", "untrusted", "errors"),
)
PURE_MAY_IMPORT = {
    "__future__",
    "collections",
    "dataclasses",
    "enum",
    "itertools",
    "re",
    "typing",
    "base64",
    "binascii",
    "pathlib",
    "orjson",
    "numpy",
    "bridge",
}
STARTERS = (
    "tasks.py",
    "admin.py",
    "ledger.py",
    "storing.py",
    "creating.py",
    "intake.py",
)  # with the webhooks: whoever starts work, after commit
CORE_MAY_NOT = {"asyncio", "time", "logging", "django", "datetime", "random"}


def sources(room: str) -> Iterator[Path]:
    return (path for path in sorted((ROOT / room).rglob("*.py")) if "migrations" not in path.parts)


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module a file imports, also inside functions, with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            module = node.module or ""
            yield module, node.lineno
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_no_import_goes_up_the_stairs(room: str) -> None:
    above = ROOMS[: ROOMS.index(room)]
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {module}"
        for path in sources(room)
        for module, line in imports(path)
        if module.split(".")[0] in above
    ]
    assert wrong == []


def test_what_happened_knows_none_of_its_doors() -> None:
    """The admin alone, a door itself, shows what the console shows."""
    wrong = [
        f"calls/{path.name}:{line} {module}"
        for path in (ROOT / "calls").glob("*.py")
        for module, line in imports(path)
        if module.startswith(("calls.webhooks", "calls.console")) and path.name != "admin.py"
    ]
    assert wrong == []


def test_nothing_is_imported_inside_a_function() -> None:
    wrong = []
    for room in ROOMS:
        for path in sources(room):
            for function in ast.walk(ast.parse(path.read_text())):
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                    inner = (node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom))
                    wrong += [f"{path.relative_to(ROOT)}:{node.lineno}" for node in inner]
    assert wrong == []


@pytest.mark.parametrize("module", PURE)
def test_what_decides_knows_no_socket_no_clock_and_no_database(module: str) -> None:
    tops = {name.split(".")[0] for name, _ in imports(ROOT / "bridge" / f"{module}.py")}
    assert tops <= PURE_MAY_IMPORT
    assert not tops & CORE_MAY_NOT
    ours = {name.split(".")[1] for name, _ in imports(ROOT / "bridge" / f"{module}.py") if name.startswith("bridge.")}
    assert ours <= set(PURE)


def test_the_bridge_knows_no_models_no_settings_and_no_orm() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in sources("bridge")
        for name, line in imports(path)
        if name.startswith(("django.db", "django.conf", "django.contrib"))
    ]
    assert wrong == []


def test_the_sandbox_is_a_stranger_and_shares_no_line_with_our_codecs() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in sources("bridge/sandbox")
        for name, line in imports(path)
        if name.split(".")[0] in ROOMS and not name.startswith("bridge.sandbox")
    ]
    assert wrong == []


def test_services_never_import_tasks() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for room in ("agents", "calls")
        for path in sources(room)
        if path.name not in STARTERS and "webhooks" not in path.parts
        for name, line in imports(path)
        if name in (f"{room}.tasks", "calls.tasks", "agents.tasks")
    ]
    assert wrong == []


def test_there_are_no_signals_between_our_rooms() -> None:
    users = [str(path.relative_to(ROOT)) for room in ROOMS for path in sources(room) if "django.dispatch" in path.read_text()]
    assert users == []


def test_no_lock_names_an_address() -> None:
    for lock in (ROOT / "requirements").glob("*.lock"):
        assert "://" not in lock.read_text()


def _modules() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for room in ROOMS for path in sources(room)}
    for room in ROOMS:
        for path in sources(room):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            graph[name] = {module for module, _ in imports(path) if module in names and module != name}
    return graph


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    graph = _modules()
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path, module))
        if module not in done:
            for below in sorted(graph[module]):
                visit(below, (*path, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_make_test_looks_for_journeys_wherever_there_is_one() -> None:
    (listed,) = re.findall(r"^JOURNEYS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    places = [ROOT / place for place in listed.split()]
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if re.search(r"mark\.journey\b", path.read_text())]
    assert len(marked) > 20
    assert [path.name for path in marked if not any(path.is_relative_to(place) for place in places)] == []


def test_a_hook_that_may_fail_after_a_commit_has_a_name() -> None:
    """Django logs a robust hook that failed by its name, which a partial has not: then it is the log that fails, and whoever committed."""
    nameless = re.compile(r"on_commit\(\s*partial\((?:[^()]|\([^()]*\))*\),\s*robust=True")
    assert nameless.search("on_commit(partial(f, a=g(1)), robust=True)")
    assert [path for room in ROOMS for path in sources(room) if nameless.search(path.read_text())] == []


def test_who_catches_what_the_database_raises_catches_all_of_it() -> None:
    """Django's own DatabaseError is no InterfaceError, which a connection raises that was closed: django.db.Error is both."""
    half = {"django.db.DatabaseError", "django.db.utils.DatabaseError"}
    assert [
        f"{path.relative_to(ROOT)}:{line}" for room in ROOMS for path in sources(room) for name, line in imports(path) if name in half
    ] == []
