"""The distribution that the build backend builds from this checkout."""

import subprocess
import sys
import sysconfig
from pathlib import Path

from catchlight import __version__
from local import REPOSITORY
from scripts.try_wheel import build_wheel, try_wheel


def test_a_built_distribution_has_the_version_of_the_package() -> None:
    command = [sys.executable, "-m", "hatchling", "metadata", "version"]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)

    assert built.stdout.strip() == __version__


def test_the_wheel_works_outside_of_the_checkout(tmp_path: Path) -> None:
    """`make wheel` does the same with dependencies from the package index, and with other versions of Python."""
    wheel = build_wheel(tmp_path)

    # The dependencies are those of this environment. PYTHONPATH reads no .pth file: the checkout is not on the path.
    dependencies = sysconfig.get_path("purelib")
    version = try_wheel(wheel, sys.executable, tmp_path, install=("--no-deps",), PYTHONPATH=dependencies)

    assert version == f"catchlight {__version__}"


def test_docs_applications_names_the_wheel() -> None:
    page = (REPOSITORY / "docs" / "applications.md").read_text()

    assert f"pip install dist/catchlight-{__version__}-py3-none-any.whl" in page
