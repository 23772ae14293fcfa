"""The house rules that a machine can check: who imports what, and how long things are."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "dbae_jax"
FILES = {str(p.relative_to(PACKAGE))[:-3].replace("/", "."): p for p in PACKAGE.rglob("*.py")}
CONFIGS = {str(p.relative_to(ROOT)): p for p in (ROOT / "configs").rglob("*.py")}

# Heavy libraries have one place each.
OWNERS = {
    "orbax": {"checkpoint"},
    "grain": {"data.pipeline"},
    "tensorflow_datasets": {"data.builders.base", "data.prepared"},
    "array_record": {"data.builders.shards"},
    "lmdb": {"data.lmdb_files"},
    "torch": {"tensor_files"},
    "safetensors": {"tensor_files"},
    "tensorflow": set(),
    "ml_collections": {"config", "command_line"},
    "jax.sharding": {"sharding"},
    "flax.linen": {n for n in FILES if n.startswith("models.")},
    "sklearn": {
        "data.sources",
        "editing",  # the probe whose normal is a direction
        "evaluators.probe",
        "evaluators.reconstruction",
        "metrics.disentanglement",
    },
    "matplotlib": {"evaluators.pictures"},
    "jinja2": {"report.page"},
}

# Modules that know nothing of networks, and those that know nothing but arrays.
NO_MODELS = ("schedules", "bridge", "precond", "samplers", "time_grids", "losses", "optim", "rngs")
ARRAYS_ONLY = ("schedules", "rngs", "errors", "flops", "latent_diffusion", "total_correlation")

# Commands, which read a config, within folders of modules that do not.
COMMANDS = ("data.loader_speed",)


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


def test_mathematics_does_not_know_networks():
    for name in NO_MODELS:
        assert not [i for i in _ours(name) if i.startswith("models")], name
    for name in ARRAYS_ONLY:
        assert not _ours(name), name
    for name in FILES:
        if name.startswith("metrics."):
            others = {i for i in _ours(name) if not i.startswith("metrics")}
            assert others <= {"errors", "tensor_files"}, name
    assert _ours("bridge") == {"schedules"}
    assert _ours("time_grids") == {"bridge", "schedules"}
    assert _ours("sampler_tables") == {"bridge", "precond", "schedules"}


def test_only_the_border_sees_the_config_of_ml_collections():
    inner = [n for n in FILES if n.startswith(("models", "data", "evaluators")) or n in NO_MODELS]
    for name in set(inner) - set(COMMANDS):
        assert not _ours(name) & {"build", "workdir", "train", "main"}, name


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
    for name, path in (FILES | CONFIGS).items():
        text = path.read_text()
        assert len(text.splitlines()) <= 400, name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                doc = ast.get_docstring(node) or ""
                length = node.end_lineno - node.lineno + 1 - len(doc.splitlines())
                assert length <= 45, f"{name}.{node.name}: {length} lines"


def _public_functions(tree):
    for scope in (tree, *(n for n in tree.body if isinstance(n, ast.ClassDef))):
        if scope is tree or not scope.name.startswith("_"):
            for node in scope.body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    yield node


def test_public_functions_have_type_hints():
    """For all that has a name of its own: not for *args and **kwargs, nor self."""
    for name, path in FILES.items():
        for node in _public_functions(ast.parse(path.read_text())):
            given = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
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
