"""What is installed: one import name, everything under it, and nothing of a user's own that could be taken for ours."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

import tiny

THEIRS = ("training", "configs", "tokens", "mtm", "finetune", "downstream", "runtime", "report")
IMPORTED = 'raise SystemExit("a file of the user\'s was imported")\n'


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built from a copy, as building leaves files behind."""
    folder = tmp_path_factory.mktemp("package")
    kept_out = shutil.ignore_patterns(".git", ".venv", ".wheels", "runs", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(tiny.ROOT, folder / "checkout", symlinks=True, ignore=kept_out)
    done = tiny.run("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder,
                    folder / "checkout")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of an empty environment that the wheel is installed into; libraries come from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    program = folder / "bin" / "python"
    done = tiny.run("-m", "pip", "--python", program, "install", "--quiet", "--no-deps", wheel)
    assert done.returncode == 0, done.stderr
    site = next(folder.glob("lib/python*/site-packages"))
    assert {path.name.split("-")[0] for path in site.iterdir()} == {"seitpp"}
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))  # their own .pth files are not read from there
    return program


@pytest.fixture
def users_folder(tmp_path):
    """A project of the user's own, whose modules have the names of our rooms."""
    for name in THEIRS:
        (tmp_path / f"{name}.py").write_text(IMPORTED)
    for name in ("training", "configs"):
        (tmp_path / f"{name}.py").unlink()
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(IMPORTED)
    return tmp_path


def run(program, *words, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [program, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_wheel_has_one_top_level_name_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"seitpp"}
    assert "seitpp/mtm/pretrain.py" in names
    assert not [name for name in names if "test" in name.split("/")[1]]


def test_a_wheel_has_every_module_recipe_and_template(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=tiny.ROOT, capture_output=True,
        text=True, check=True,
    ).stdout.split()  # fmt: skip
    above = {path.name for path in (tiny.ROOT / "seitpp").iterdir() if path.is_symlink()}
    wanted = {f"seitpp/{name}" for name in files if name.split("/")[0] in above}
    wanted |= {name for name in files if name.startswith("seitpp/") and not (tiny.ROOT / name).is_symlink()}
    assert wanted - names == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["-m", "seitpp.cli", "pretrain"],
        ["-m", "seitpp.mtm.pretrain"],
        ["-m", "accelerate.commands.accelerate_cli", "launch", "-m", "seitpp.mtm.pretrain"],
    ],
    ids=["seitpp", "python -m", "accelerate launch -m"],
)
def test_files_of_the_users_own_change_nothing(python, users_folder, words):
    done = run(python, *words, "--help", cwd=users_folder)
    assert done.returncode == 0, done.stderr
    assert "--augment" in done.stdout


def test_the_command_is_installed_and_finds_recipes_from_any_folder(python, users_folder):
    done = run(python.parent / "seitpp", "--help", cwd=users_folder)
    assert done.returncode == 0, done.stderr
    found = "from seitpp.runtime.recipes import find_recipe; print(find_recipe('demo', 'pretrain'))"
    done = run(python, "-c", found, cwd=users_folder)
    assert done.stdout.strip().endswith("seitpp/configs/pretrain/demo.yaml"), done.stderr
    assert str(python.parent.parent) in done.stdout


@pytest.mark.slow
def test_in_a_checkout_a_room_runs_by_its_own_name_too():
    done = run(sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "-m", "mtm.pretrain", "--help",
               cwd=tiny.ROOT)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--augment" in done.stdout
