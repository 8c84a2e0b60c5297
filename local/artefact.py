"""Builds the artefact for this machine: the output of `sam build`, with wheels that this interpreter can import.

`make smoke`, `python -m local up --built`, the end-to-end tests and the deployment rehearsal use the same build. It is
made on first use, and again when a source has changed.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local import REPOSITORY, LocalStackError
from local.environment import without_user_settings

# The files and folders that `sam build` reads. The fingerprint also includes the interpreter, because another one needs
# other wheels and other bytecode.
SOURCES = ("template.yaml", "samconfig.toml", "functions", "layers", "statemachines")
LAYER = "CatchlightLayer"
# A stack that runs from an older build keeps that build while the sources are edited and built again.
KEPT_BUILDS = 2


@dataclass(frozen=True)
class Artefact:
    """The output of `sam build`: one folder per function and layer, and the template that refers to them."""

    folder: Path

    @property
    def template(self) -> Path:
        """The built template. Its CodeUri and ContentUri are folders beside it."""
        return self.folder / "template.yaml"

    @property
    def layer(self) -> Path:
        """The layer's folder that Lambda puts on the import path, as /opt/python."""
        return self.folder / LAYER / "python"

    def function(self, logical_id: str) -> Path:
        """Returns the folder of a function, which Lambda unpacks into /var/task."""
        return self.folder / logical_id


def built_artefact(show: Callable[[str], None], project: Path = REPOSITORY, python: Path | None = None) -> Artefact:
    """Returns the artefact of `project` for this machine, built if it is missing or a source has changed.

    `python` is the interpreter, with pip, that will import the artefact; by default it is this process's own. `show` is
    called with a message before a build starts. Processes that call this at the same time wait for one build. Each
    build has its own folder, so a stack that runs from an older one continues; the two most recently used builds are
    kept.

    Raises:
        LocalStackError: the build failed; the message has SAM's output.
    """
    python = python or Path(sys.executable)
    is_own = python == Path(sys.executable)
    builds = project / ".aws-sam" / ("this-machine" if is_own else "another-python")
    with _one_build_at_a_time(builds.with_suffix(".lock")):
        folder = builds / fingerprint(project, python)[:16]
        if not folder.is_dir():
            reason = "the sources have changed" if builds.is_dir() else "there is none yet"
            show(f"Building the functions and the layer for this machine ({reason}). This takes about 15 s.")
            # At the same depth as the final folder: the template has a relative path to the state machine's definition.
            unfinished = folder.with_suffix(".unfinished")
            _build(project, unfinished, python)
            unfinished.rename(folder)
        os.utime(folder)
        _remove_old(builds)
    return Artefact(folder)


def _remove_old(builds: Path) -> None:
    """Removes all builds except the most recently used ones."""
    by_use = sorted((each for each in builds.iterdir() if each.is_dir()), key=lambda each: each.stat().st_mtime_ns)
    for old in by_use[:-KEPT_BUILDS]:
        shutil.rmtree(old, ignore_errors=True)


def fingerprint(project: Path, python: Path) -> str:
    """Returns the SHA-256 of all sources of a build and of the interpreter for which it is made."""
    version = subprocess.run([str(python), "-VV"], check=True, capture_output=True, text=True).stdout
    digest = hashlib.sha256(f"{version} {platform.machine()} {python}\n".encode())
    for path in source_files(project):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(project)} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def source_files(project: Path) -> Iterator[Path]:
    """Yields every file that a build of `project` reads."""
    for source in SOURCES:
        path = project / source
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (file for file in files if file.is_file() and "__pycache__" not in file.parts)


def _build(project: Path, folder: Path, python: Path) -> None:
    # An interrupted build may have left files here.
    shutil.rmtree(folder, ignore_errors=True)
    variables = {
        "BUILD_FOR": "this-machine",
        "BUILD_PYTHON": str(python),
        "RUNTIME_PYTHON": str(python),
        # SAM needs a region to expand the template.
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    # Ignores samconfig.toml: a profile there is meant for deployments and does not exist here.
    run_sam(["build", "--config-env", "none", "--parallel", "--build-dir", str(folder)], variables, project)


def run_sam(arguments: Sequence[str], variables: Mapping[str, str], project: Path = REPOSITORY) -> None:
    """Runs a command of SAM in a project's folder, with these environment variables and no AWS settings of the user.

    Raises:
        LocalStackError: the command failed; the message has SAM's output.
    """
    run = subprocess.run(
        [str(Path(sys.executable).with_name("sam")), *arguments],
        cwd=project,
        env=without_user_settings(os.environ) | {"SAM_CLI_TELEMETRY": "0", **variables},
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if run.returncode:
        raise LocalStackError(f"sam {arguments[0]} failed:\n{run.stdout[-4000:]}\n{run.stderr[-4000:]}")


@contextmanager
def _one_build_at_a_time(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, however the process ends
        yield
