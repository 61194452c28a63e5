"""The house: imports run only down DESIGN.md's table of rooms, and light commands stay light."""

import ast
import json

import pytest

import tiny

ROOT = tiny.ROOT
ROOMS = {  # from the ground up: a room may import those above it in this table, but for the exceptions
    "runtime": "seitpp/runtime",
    "training": "seitpp/training",
    "tokens": "seitpp/tokens",
    "tokenizers": "seitpp/tokenizers",
    "coloradapt": "coloradapt",
    "tokenadapt": "tokenadapt",
    "mtm": "mtm",
    "finetune": "finetune",
    "downstream": "downstream",
    "report": "seitpp/report",
    "pipeline": "seitpp/pipeline",
    "demo": "seitpp/demo",
}
NEVER = {("tokens", "training"), ("coloradapt", "tokenizers")}
ALL = [path for folder in ROOMS.values() for path in sorted((ROOT / folder).rglob("*.py"))]
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "diffusers",
    "huggingface_hub",
    "pandas",
    "pyarrow",
    "sklearn",
    "scipy",
    "jsonargparse",
}


def imports_of(path):
    """(line, dotted name, whether it runs on import) of every import of a file; relative ones begin with a dot."""
    tree = ast.parse(path.read_text(), filename=str(path))
    late = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.Lambda) or _is_for_types(f)]
    inside = {id(n) for f in late for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, id(node) not in inside
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or ""), id(node) not in inside


def _is_for_types(node):
    """Whether it is a block that type checkers alone read."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def named(path):
    return path.relative_to(ROOT).as_posix()


def module_name(path):
    name = named(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name if name.startswith("seitpp.") else f"seitpp.{name}"


def test_every_package_is_a_room():
    inside = {path.parent.name for path in ROOT.glob("seitpp/*/__init__.py")}
    above = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks", "tests", "seitpp"}
    assert inside == set(ROOMS)
    assert above == {name for name, folder in ROOMS.items() if folder == name}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_at_the_top_is_linked_into_the_package(room):
    place = ROOT / "seitpp" / room
    assert place.is_dir()
    assert place.is_symlink() == (ROOMS[room] == room)
    assert place.resolve() == ROOT / ROOMS[room]


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_only_up_the_table_of_rooms(room):
    order = list(ROOMS)
    allowed = {name for name in order[: order.index(room) + 1] if (room, name) not in NEVER}
    wrong = [
        f"{named(path)}:{line} imports {name}"
        for path in sorted((ROOT / ROOMS[room]).rglob("*.py"))
        for line, name, _ in imports_of(path)
        if name.split(".")[0] == "seitpp" and name.split(".")[1:2] not in [[each] for each in allowed]
    ]
    assert wrong == []


def test_every_import_says_seitpp_and_none_reaches_the_tests_or_benchmarks():
    wrong = [
        f"{named(path)}:{line} imports {name}"
        for path in ALL
        for line, name, _ in imports_of(path)
        if name.startswith(".") or name.split(".")[0] in {"tests", "benchmarks", *ROOMS}
    ]
    assert wrong == []


def test_no_module_reaches_itself_through_what_it_imports_at_its_top():
    modules = {module_name(path): path for path in ALL}
    reaches = {
        name: {target for _, target, at_top in imports_of(path) if at_top and target in modules}
        for name, path in modules.items()
    }
    for name in reaches:
        seen, waiting = set(), list(reaches[name])
        while waiting:
            target = waiting.pop()
            if target not in seen:
                seen.add(target)
                waiting += reaches[target]
        assert name not in seen, f"{name} imports itself in a circle"


def test_no_stage_uses_anothers_entry_point():
    wrong = [
        f"{named(path)}:{node.lineno} imports {alias.name} of {node.module}"
        for path in ALL
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and path.name != "cli.py"
        for alias in node.names
        if alias.name in ("main", "cli")
    ]
    assert wrong == []


def public_functions(body):
    """Functions and methods without a leading underscore, constructors among them, of public classes and modules."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body)
        elif isinstance(node, ast.FunctionDef) and (node.name == "__init__" or not node.name.startswith("_")):
            yield node


def untyped(function):
    """Names of its parameters without a type, and "return"."""
    signature = function.args
    parameters = [*signature.posonlyargs, *signature.args, *signature.kwonlyargs, signature.vararg, signature.kwarg]
    names = [each.arg for each in parameters if each and not each.annotation and each.arg not in ("self", "cls")]
    return names if function.returns or function.name == "__init__" else [*names, "return"]


def test_every_public_function_is_typed():
    assert [
        f"{named(path)}:{function.lineno} {function.name}: {names}"
        for path in [*ALL, *sorted((ROOT / "seitpp").glob("*.py"))]
        for function in public_functions(ast.parse(path.read_text()).body)
        if (names := untyped(function))
    ] == []


def test_a_file_is_named_after_its_idea():
    assert [
        named(path) for path in ALL if {"utils", "util", "misc", "helpers", "common"} & set(path.stem.split("_"))
    ] == []


LOADED = "import json, sys; import {0}; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"


@pytest.mark.parametrize(
    "module",
    [
        "seitpp",
        "seitpp.cli",
        "seitpp.mtm",
        "seitpp.tokens",
        "seitpp.finetune",
        "seitpp.store_cli",
        "seitpp.runtime.command",
    ],
)
def test_a_light_import_stays_light(module):
    done = tiny.run("-c", LOADED.format(module))
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) & HEAVY == set()
