"""Lints the state machines for errors that cfn-lint and `sam validate` miss, such as a wrong Next or JSONPath."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from local import REPOSITORY

VALIDATOR = REPOSITORY / "node_modules" / ".bin" / "asl-validator"


def main() -> int:
    """Validates every state machine and returns the exit status: 0 if all are valid."""
    if not VALIDATOR.exists():
        # The packages need no install scripts, which would run with the permissions of the developer.
        install = ["npm", "ci", "--ignore-scripts", "--silent", "--no-audit", "--no-fund"]
        subprocess.run(install, cwd=REPOSITORY, check=True)
    with tempfile.TemporaryDirectory() as folder:
        definitions = []
        for source in sorted((REPOSITORY / "statemachines").glob("*.asl.yaml")):
            target = Path(folder) / source.with_suffix(".json").name
            target.write_text(json.dumps(yaml.safe_load(source.read_text())))
            definitions += ["--json-path", str(target)]
        return subprocess.run([str(VALIDATOR), *definitions], check=False).returncode


if __name__ == "__main__":
    if shutil.which("npm") is None:
        sys.exit("make check lints the state machine with an npm package: install Node.js 20 or newer, then try again")
    sys.exit(main())
