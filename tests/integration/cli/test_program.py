"""The command line as a program of its own."""

import subprocess
import sys
from pathlib import Path


def test_as_a_program(tmp_path: Path) -> None:
    """Without a stack or credentials, and if its pipe is closed, it prints no traceback."""
    program = [sys.executable, "-m", "catchlight_cli"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    done = subprocess.run(
        [*program, "status", "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: No AWS region is configured. Use --region, or set AWS_REGION.\n"

    regional = {**environment, "AWS_REGION": "us-east-1"}
    done = subprocess.run([*program, "status"], cwd=tmp_path, env=regional, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: No AWS credentials were found.")
    assert "Traceback" not in done.stderr

    closed = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m catchlight_cli --help | head -1; echo $?"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in closed.stderr
    assert closed.stdout.startswith("usage: catchlight")
