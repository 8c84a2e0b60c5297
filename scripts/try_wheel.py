"""Builds the wheel into dist/, then installs and tries it outside of the checkout with each installed Python version.

pip installs the newest versions of the dependencies from the package index, as on a user's machine.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from local import REPOSITORY

DIST = REPOSITORY / "dist"
VERSIONS = ("3.11", "3.12", "3.13")
# Run in the wheel's virtual environment, outside of the checkout.
TRIAL = """
import asyncio, pkgutil, sys
from importlib import import_module
from pathlib import Path

import httpx

import catchlight, catchlight_cli
from catchlight.client import AsyncTasksClient, TaskStatus, TasksClient
from catchlight.events import TaskEvent
from catchlight_cli.gallery import GalleryServer

checkout = Path(sys.argv[1])
for package in (catchlight, catchlight_cli):
    folder = Path(package.__file__).parent
    assert not folder.is_relative_to(checkout), folder
    assert (folder / "py.typed").exists(), folder
for package in (catchlight.client, catchlight_cli):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            import_module(module.name)

answer = httpx.MockTransport(lambda request: httpx.Response(200, json={"tasks": []}))
with TasksClient("https://api.example", transport=answer) as api, GalleryServer(api) as gallery:
    assert list(api.tasks(status=TaskStatus.ARCHIVED)) == []
    page = httpx.get(gallery.url, trust_env=False)
    assert page.status_code == 200, page
    for name in ("js", "css"):
        assert "." + name in page.text

async def list_tasks():
    async with AsyncTasksClient("https://api.example", transport=answer) as api:
        return [task async for task in api.tasks()]

assert asyncio.run(list_tasks()) == []
"""


def build_wheel(folder: Path) -> Path:
    """Builds the wheel of this checkout into a folder.

    Raises:
        CalledProcessError: the build failed.
    """
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (wheel,) = folder.glob("*.whl")
    return wheel


def try_wheel(wheel: Path, python: str, folder: Path, install: tuple[str, ...] = (), **variables: str) -> str:
    """Installs the wheel into a new virtual environment in the folder, tries it, and returns its version.

    Raises:
        CalledProcessError: a step failed and has written the reason to stderr.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | variables
    subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True, env=environment)
    programs = folder / "venv" / "bin"
    pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--no-user", *install, str(wheel)]
    subprocess.run(pip, check=True, cwd=folder, env=environment)
    trial = [str(programs / "python"), "-W", "error", "-c", TRIAL, str(REPOSITORY)]
    subprocess.run(trial, check=True, cwd=folder, env=environment)
    command = [str(programs / "catchlight"), "--version"]
    shown = subprocess.run(command, check=True, cwd=folder, env=environment, capture_output=True, text=True)
    return shown.stdout.strip()


def find_python(version: str) -> str:
    """Returns the path of an interpreter of this version, such as 3.13; empty if this machine has none."""
    find = [str(REPOSITORY / "scripts" / "find-python"), "--exactly", version]
    return subprocess.run(find, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    """Tries the wheel with each installed version of Python. Returns exit status 0 if it works with all of them."""
    shutil.rmtree(DIST, ignore_errors=True)
    wheel = build_wheel(DIST)
    print(f"{wheel.relative_to(REPOSITORY)} has {wheel.stat().st_size / 1000:.0f} kB.")
    for version in VERSIONS:
        python = find_python(version)
        if not python:
            print(f"Python {version} is not installed: not tried.")
            continue
        with tempfile.TemporaryDirectory() as folder:
            print(f"{try_wheel(wheel, python, Path(folder))} works with Python {version}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
