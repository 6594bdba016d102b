"""What a user gets: the sdist and the wheel hold every file of the house, and the wheel adds one name to site-packages."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("core", "tasks", "targets", "compress", "export", "bench", "search", "cli")
TOP = ("__init__.py", "__main__.py", "py.typed")


def tree(*folders: str) -> set[str]:
    """The files under ``folders``, without what Python and editors leave there."""
    found = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*"):
            name = path.relative_to(ROOT)
            if path.is_file() and "__pycache__" not in name.parts and not path.name.endswith((".pyc", "~", ".swp")):
                found.add(name.as_posix())
    return found


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it; no network."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return out


@pytest.fixture(scope="module")
def site(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    """A fresh environment's interpreter after the wheel was installed, and its site-packages before and after."""
    home = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=300)
    python = home / "bin" / "python"
    (packages,) = home.glob("lib/python*/site-packages")
    before = sorted(p.name for p in packages.iterdir())
    (wheel,) = dist.glob("*.whl")
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile", str(wheel)]
    subprocess.run(command, check=True, timeout=300)
    return python, before, sorted(p.name for p in packages.iterdir())


def ask(python: Path, code: str, folder: Path, **environment: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    ran = subprocess.run([str(python), "-c", code], cwd=folder, env={**kept, **environment}, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_the_wheel_is_the_tree(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {n for n in names if ".dist-info/" not in n}
    assert ours == {f"packlight/{n}" for n in {*TOP, *tree(*ROOMS)}}
    assert {n.rpartition("/")[2] for n in names - ours} >= {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "LICENSE"}


def test_the_sdist_is_the_tree(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    wanted = {*TOP, *tree(*ROOMS, "tests", "docs", "examples")}
    wanted |= {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt"}
    assert names - {"PKG-INFO", ".gitignore"} == wanted


def test_site_packages_gains_one_name(site: tuple[Path, list[str], list[str]]) -> None:
    _, before, after = site
    gained = [n for n in after if n not in before]
    assert [n for n in gained if not n.endswith(".dist-info")] == ["packlight"]
    assert len(gained) == 2
    assert gained[1].startswith("packlight-")


def test_it_imports_without_any_dependency(site: tuple[Path, list[str], list[str]], tmp_path: Path) -> None:
    assert ask(site[0], "import packlight; print(packlight.__version__, len(packlight.__all__) > 1)", tmp_path) == "0.1.0 True"
    (program,) = (site[0].parent).glob("packlight*")
    assert os.access(program, os.X_OK)


def test_it_finds_its_own_data(site: tuple[Path, list[str], list[str]], tmp_path: Path) -> None:
    """With the dependencies in reach (this environment's, whose editable install a PYTHONPATH doesn't follow)."""
    code = "import packlight, packlight.targets.load as t; print(packlight.__file__); [t.load_target(n) for n in t.target_names()]"
    told = ask(site[0], code, tmp_path, PYTHONPATH=sysconfig.get_path("platlib"))
    assert Path(told).is_relative_to(site[0].parents[1])
