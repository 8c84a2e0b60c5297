"""The command line, run as a separate process."""

import os
import subprocess
import sys
from pathlib import Path


def test_the_program_prints_no_traceback_for_expected_errors(tmp_path: Path) -> None:
    """Expected errors: no region, no credentials, a closed pipe."""
    program = [sys.executable, "-m", "catchlight_cli"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    process = subprocess.run(
        [*program, "status", "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr == "error: No AWS region is configured. Use --region, or set AWS_REGION.\n"

    regional = {**environment, "AWS_REGION": "us-east-1"}
    process = subprocess.run(
        [*program, "status"], cwd=tmp_path, env=regional, capture_output=True, text=True, check=False
    )
    assert process.returncode == 1
    assert process.stderr.startswith("error: No AWS credentials were found.")
    assert "Traceback" not in process.stderr

    read_end, write_end = os.pipe()
    os.close(read_end)  # every write fails with EPIPE
    with os.fdopen(write_end, "wb") as closed_pipe:
        process = subprocess.run(
            [*program, "--help"],
            cwd=tmp_path,
            env=environment,
            stdout=closed_pipe,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (process.returncode, process.stderr) == (1, "")
