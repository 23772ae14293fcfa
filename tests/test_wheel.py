"""The package as users install it: a wheel, in an environment of its own, outside of the clone."""

import os
import pathlib
import shutil
import subprocess
import sys
import venv
import zipfile

import pytest

from tests.helpers.paths import ROOT

NOT_COPIED = (".venv", ".git", "runs", "build", "dist", "*.egg-info", "__pycache__", "recordings")
# What setuptools would install is here already: the test's own environment has it.
DEPENDENCIES = pathlib.Path(pytest.__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built from the source distribution as `python -m build` does."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_COPIED))
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """The bin folder of an empty environment into which the wheel was installed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/*/site-packages")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "-q"]
    subprocess.run([*install, str(wheel)], check=True, timeout=300)
    # A path file adds the folder itself and not the links in it, such as that to the clone.
    (packages / "dependencies.pth").write_text(f"{DEPENDENCIES}\n")
    return folder / "bin"


def _run(environment, folder, program, *arguments):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [str(environment / program), *arguments],
        cwd=folder,
        env=inherited,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_the_wheel_holds_configs_templates_and_types(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("configs/base.py", "configs/paper/generation.py", "py.typed"):
        assert f"dbae_jax/{name}" in names
    released = ("digits", "shapes", "emoji32")
    weights = {f"dbae_jax/weights/{name}.safetensors" for name in released}
    assert weights | {"dbae_jax/app/style.css"} <= set(names)
    for path in (ROOT / "dbae_jax" / "report" / "templates").iterdir():
        assert f"dbae_jax/report/templates/{path.name}" in names
    assert not [name for name in names if name.startswith(("tests/", "configs/"))]


def test_a_checkout_runs_where_only_the_dependencies_are_installed(tmp_path):
    """-S leaves out the .pth file of this environment, which names an installed checkout."""
    code = f"import sys; sys.path.append({str(DEPENDENCIES)!r}); import dbae_jax.configs as c; "
    python = [sys.executable, "-S", "-c", code + "print(c.__path__[0])"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        python, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == str(ROOT / "configs"), done.stderr


def test_it_is_imported_from_the_environment(environment, tmp_path):
    code = "import dbae_jax; print(dbae_jax.__version__, dbae_jax.__file__)"
    done = _run(environment, tmp_path, "python", "-c", code)
    version, file = done.stdout.split()
    assert pathlib.Path(file).is_relative_to(environment.parent), done.stderr
    assert version in (ROOT / "CHANGELOG.md").read_text()


def test_the_console_script_shows_its_help(environment, tmp_path):
    done = _run(environment, tmp_path, "dbae", "--help")
    module = _run(environment, tmp_path, "python", "-m", "dbae_jax.main", "--help")
    assert done.returncode == module.returncode == 0
    assert done.stdout == module.stdout
    assert "interpolate" in done.stdout and "Usage: dbae COMMAND [flags]" in done.stdout


@pytest.mark.slow
def test_it_trains_and_reports_in_an_empty_folder(environment, tmp_path):
    quick = ["--config.train.num_steps=2", "--config.train.picture_every_steps=0"]
    quick += ["--config.train.diagnose_every_steps=0", "--config.train.batch_size=16"]
    quick += ["--config.model.encoder.channel_mult=(1,)", "--config.model.unet.channel_mult=(1,)"]
    quick += ["--config.model.unet.attention_resolutions=()"]
    run = ("-m", "dbae_jax.main", "--config=digits", "--workdir=x", *quick)
    done = _run(environment, tmp_path, "python", *run)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x" / "checkpoints").is_dir()
    dry = _run(environment, tmp_path, "dbae", "--config=paper/generation", "--dry_run")
    assert dry.returncode == 0 and "Parameters: 162" in dry.stdout
