"""The distribution that the build backend makes of this checkout."""

import subprocess
import sys

from catchlight import __version__
from local import REPOSITORY


def test_a_built_distribution_has_the_version_of_the_package() -> None:
    command = [sys.executable, "-m", "hatchling", "metadata", "version"]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)

    assert built.stdout.strip() == __version__
