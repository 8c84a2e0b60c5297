"""Lints the OpenAPI documents with Spectral, an npm package. Every result is an error, even a hint."""

import shutil
import subprocess
import sys
from pathlib import Path

from local import REPOSITORY

_PACKAGE = Path(__file__).parent / "openapi-linter"  # its package-lock.json contains the hash of each package
_FOLDER = REPOSITORY / ".local" / "openapi-linter"
_SPECTRAL = _FOLDER / "node_modules" / ".bin" / "spectral"


def main() -> int:
    """Lints every document and returns the exit status: 0 if there is nothing to report."""
    if not _SPECTRAL.exists():
        _FOLDER.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_PACKAGE / name, _FOLDER)
        install = ["npm", "ci", "--ignore-scripts", "--silent", "--no-audit", "--no-fund"]
        subprocess.run(install, cwd=_FOLDER, check=True)
    documents = sorted(map(str, (REPOSITORY / "docs").glob("*.openapi.yaml")))
    command = [str(_SPECTRAL), "lint", "--ruleset", str(_PACKAGE / "ruleset.yaml"), "--fail-severity", "hint"]
    return subprocess.run([*command, *documents], check=False).returncode


if __name__ == "__main__":
    if shutil.which("npm") is None:
        sys.exit("make lint-openapi needs an npm package: install Node.js 20 or newer, then try again")
    sys.exit(main())
