"""Scans the template with checkov, as it is written and as CloudFormation gets it.

Fails for a finding, and for a check that is passed over and would find nothing: its reason has gone.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from local.template.expand import load_template

PROJECT = Path(__file__).parent.parent
CHECKOV = PROJECT / ".venv-checkov" / "bin" / "checkov"
CONFIG = PROJECT / ".checkov.yaml"
MAX_SKIPS = 7


def main() -> int:
    """Exit status 0 if checkov finds nothing and is told to pass over nothing needlessly."""
    skipped: list[str] = yaml.safe_load(CONFIG.read_text())["skip-check"]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        raw, expanded = Path(folder) / "template.yaml", Path(folder) / "expanded.json"
        raw.write_bytes((PROJECT / "template.yaml").read_bytes())
        resources = load_template(PROJECT / "template.yaml", {}).resources
        expanded.write_text(json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}, indent=1))
        for template in (raw, expanded):
            report = scan(template, "--config-file", str(CONFIG))
            summary = report["summary"]
            print(f"checkov, {template.name}: {summary['passed']} passed, {summary['failed']} failed", flush=True)
            for finding in report["results"]["failed_checks"]:
                print(f"  {finding['check_id']} {finding['resource']}: {finding['check_name']}")
            failed += summary["failed"] + summary["parsing_errors"]
        # Without the configuration: who has something to pass over?
        everything = scan(expanded, "--framework", "cloudformation", "--skip-download")["results"]["failed_checks"]
    print(f"{len(skipped)} checks are passed over, {MAX_SKIPS} at most; the reasons are in {CONFIG.name}")
    if needless := set(skipped) - {finding["check_id"] for finding in everything}:
        print(f"{', '.join(sorted(needless))} would find nothing: take it out of {CONFIG.name}")
    return int(failed > 0 or bool(needless) or len(skipped) > MAX_SKIPS)


def scan(template: Path, *options: str) -> dict[str, Any]:
    """checkov's report on a template, run in its folder: there is no configuration but the one it is given."""
    command = [str(CHECKOV), "--file", template.name, "--output", "json", *options]
    answer = subprocess.run(command, cwd=template.parent, capture_output=True, text=True, check=False)
    try:
        report: dict[str, Any] = json.loads(answer.stdout)
    except ValueError:
        sys.exit(f"checkov did not run: {answer.stderr or answer.stdout}")
    return report


if __name__ == "__main__":
    sys.exit(main())
