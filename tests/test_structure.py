"""The rules that a machine can check: who imports what, and how long things are."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "dbae_jax"
FILES = {
    str(p.relative_to(PACKAGE))[:-3].replace("/", "."): p
    for p in PACKAGE.rglob("*.py")
    if p.name != "__init__.py"
}
CONFIGS = {str(p.relative_to(ROOT)): p for p in (ROOT / "configs").rglob("*.py")}
TESTS = {str(p.relative_to(ROOT)): p for p in (ROOT / "tests").rglob("*.py")}

# Folder -> the folders that it may import, in import order: each names only folders above it.
# `errors` is open to all. docs/reference/code.md says what each folder is.
FOLDERS = {
    "bridge": (),
    "runtime": (),
    "models": ("runtime",),
    "editing": (),  # a public module of the root
    "sampling": ("bridge",),
    "metrics": ("runtime",),
    "configuration": ("bridge", "models", "runtime", "sampling"),
    "data": ("configuration", "runtime"),
    "workdirs": ("configuration", "models", "runtime"),
    "training": ("bridge", "models", "runtime", "configuration", "data", "workdirs"),
    "prior": ("models", "runtime", "configuration", "data", "workdirs"),
    "api": (
        *("bridge", "models", "runtime", "editing", "sampling", "configuration", "data"),
        *("workdirs", "prior"),
    ),
    "app": ("runtime", "editing", "metrics", "configuration", "data", "api"),
    "performance": ("runtime", "configuration", "training", "api"),
    "evaluation": (
        *("bridge", "runtime", "editing", "sampling", "metrics", "configuration", "data"),
        *("workdirs", "api"),
    ),
    "report": (
        *("runtime", "editing", "sampling", "configuration", "data", "workdirs", "prior"),
        *("api", "evaluation"),
    ),
    "commands": (
        *("models", "runtime", "editing", "configuration", "data", "workdirs", "training"),
        *("prior", "api", "app", "performance", "evaluation", "report"),
    ),
}
# Commands and the package itself: they may import every folder, and nobody imports them.
COMMANDS = ("__main__", "benchmark", "comparison", "convert", "main")
# The only files of commands/ that other commands import.
SHARED_BY_COMMANDS = ("trained_model", "named_pictures", "edit_files", "same_codes", "train")
# Files that know the protocols of papers or a network, but not what a suite works on.
WITHOUT_CONTEXT = ("evaluation.protocols.", "evaluation.classifier.")

# Heavy libraries have one place each.
OWNERS = {
    "etils": {"runtime.buckets.access"},
    "orbax": {"workdirs.checkpoint"},
    "grain": {"data.pipeline"},
    "tensorflow_datasets": {"data.builders.base", "data.prepared"},
    "array_record": {"data.builders.shards"},
    "lmdb": {"data.lmdb_files"},
    "torch": {"runtime.tensor_files"},
    "safetensors": {"runtime.tensor_files"},
    "tensorflow": set(),
    "ml_collections": {
        "configuration.arguments",
        "configuration.config",
        "configuration.config_files",
        "configuration.command_line",
        "configuration.saved_config",
    },
    "jax.sharding": {"runtime.sharding"},
    "flax.linen": {n for n in FILES if n.startswith("models.")},
    "sklearn": {
        "data.sources",
        "editing",  # the probe whose normal is a direction
        "evaluation.suites.probe",
        "evaluation.suites.reconstruction",
        "metrics.disentanglement",
    },
    "matplotlib": {"evaluation.pictures"},
    "jinja2": {"report.page"},
    "gradio": {"app.page", "app.server"},  # an optional library
}

MOST_MODULES, MOST_IN_THE_ROOT = 15, 7
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 400, 45


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


IMPORTS = {name: set(_imports(path)) for name, path in FILES.items()}


@pytest.mark.parametrize("library", OWNERS)
def test_heavy_libraries_have_one_owner(library):
    users = {
        name
        for name, imported in IMPORTS.items()
        if any(i == library or i.startswith(library + ".") for i in imported)
    }
    assert users <= OWNERS[library]


def _ours(name):
    return {
        i.removeprefix("dbae_jax.")
        for i in IMPORTS[name]
        if i.startswith("dbae_jax.") and i.removeprefix("dbae_jax.") in FILES
    }


def _folder(name):
    return name.partition(".")[0]


def test_the_table_of_folders_is_in_import_order():
    before = set()
    for folder, allowed in FOLDERS.items():
        assert set(allowed) <= before, f"{folder} may import folders that come after it"
        before.add(folder)
    folders = {_folder(name) for name in FILES}
    assert folders == {*FOLDERS, *COMMANDS, "errors"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_what_it_may(folder):
    allowed = {folder, "errors", *FOLDERS[folder]}
    for name in FILES:
        if _folder(name) == folder:
            wrong = [other for other in _ours(name) if _folder(other) not in allowed]
            assert not wrong, f"{name} imports {wrong}"


def test_the_table_has_no_folder_that_nobody_needs():
    for folder, allowed in FOLDERS.items():
        used = {
            _folder(other) for name in FILES if _folder(name) == folder for other in _ours(name)
        }
        assert not set(allowed) - used, f"{folder} does not import {set(allowed) - used}"


def test_the_design_page_shows_the_same_table():
    rows = re.findall(
        r"^\| `([a-z]+)(?:/|\.py)` \| .* \| (-|[a-z, ]+) \|$",
        (ROOT / "docs" / "reference" / "code.md").read_text(),
        re.MULTILINE,
    )
    shown = {folder: set(may.split(", ")) - {"-"} for folder, may in rows}
    assert list(shown) == list(FOLDERS)
    assert shown == {folder: set(allowed) for folder, allowed in FOLDERS.items()}


def test_imports_are_at_the_top_of_a_file():
    inner = {
        f"{name}.{function.name}"
        for name, path in FILES.items()
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert inner == {"runtime.tensor_files._torch"}  # an optional library


def test_commands_share_what_they_share_in_few_files():
    shared = {f"commands.{name}" for name in SHARED_BY_COMMANDS}
    for name in FILES:
        if _folder(name) == "commands":
            others = {i for i in _ours(name) if _folder(i) == "commands"}
            assert others <= shared, f"{name} imports {others - shared}"


def test_protocols_do_not_know_what_a_suite_works_on():
    for name in FILES:
        if name.startswith(WITHOUT_CONTEXT):
            wrong = {i for i in _ours(name) if i.startswith("evaluation.")}
            wrong = {i for i in wrong if not i.startswith((*WITHOUT_CONTEXT, "evaluation.results"))}
            assert not wrong, f"{name} imports {wrong}"


def test_sampling_and_losses_do_not_know_networks():
    assert not [i for i in _ours("training.losses") if _folder(i) == "models"]
    assert not _ours("bridge.schedules")
    assert _ours("bridge.marginals") == {"bridge.schedules"}


def test_folders_are_small():
    counts = {}
    for path in FILES.values():
        counts[path.parent] = counts.get(path.parent, 0) + 1
    for folder, count in counts.items():
        most = MOST_IN_THE_ROOT if folder == PACKAGE else MOST_MODULES
        assert count <= most, f"{folder} has {count} modules"


def test_imports_have_no_circle():
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path, name])
        if name in done:
            return
        path.append(name)
        for other in _ours(name):
            visit(other)
        path.pop()
        done.add(name)

    for name in FILES:
        visit(name)


def test_no_private_parts_of_jax_or_optax():
    for name, imported in IMPORTS.items():
        assert not [i for i in imported if "._src" in i], name


def test_functions_and_files_fit_on_a_screen():
    for name, path in (FILES | CONFIGS | TESTS).items():
        text = path.read_text()
        assert len(text.splitlines()) <= MOST_LINES_OF_A_FILE, name
        if path in TESTS.values():
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                doc = ast.get_docstring(node) or ""
                length = node.end_lineno - node.lineno + 1 - len(doc.splitlines())
                assert length <= MOST_LINES_OF_A_FUNCTION, f"{name}.{node.name}: {length} lines"


def _public_functions(tree):
    for scope in (tree, *(n for n in tree.body if isinstance(n, ast.ClassDef))):
        if scope is tree or not scope.name.startswith("_"):
            for node in scope.body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    yield node


def test_public_functions_have_type_hints():
    for name, path in FILES.items():
        for node in _public_functions(ast.parse(path.read_text())):
            args, rest = node.args, filter(None, (node.args.vararg, node.args.kwarg))
            given = (*args.posonlyargs, *args.args, *args.kwonlyargs, *rest)
            bare = [a.arg for a in given if a.annotation is None and a.arg not in ("self", "cls")]
            assert not bare and node.returns, f"{name}.{node.name}: {bare or 'what it returns'}"


def test_no_two_modules_define_the_same_flag():
    """absl keeps one table of flags for all modules that a process imports."""
    defined = [
        node.args[0].value
        for path in FILES.values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr.startswith("DEFINE_")
    ]
    assert len(defined) > 20 and len(defined) == len(set(defined))
