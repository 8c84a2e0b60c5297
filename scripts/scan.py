"""Scans the template with checkov, both as written and as expanded for CloudFormation.

Fails for a finding, for a skipped check that would find nothing (its reason no longer applies), and for more than
`MAX_SKIPS` skipped checks.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from local import REPOSITORY
from local.template.expand import load_template

CHECKOV = REPOSITORY / ".venv-checkov" / "bin" / "checkov"
CONFIG = REPOSITORY / ".checkov.yaml"
MAX_SKIPS = 8


def main() -> int:
    """Runs the scans and returns the exit status: 0 if checkov finds nothing and no check is skipped needlessly."""
    skipped: list[str] = yaml.safe_load(CONFIG.read_text())["skip-check"]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        raw, expanded = Path(folder) / "template.yaml", Path(folder) / "expanded.json"
        raw.write_bytes((REPOSITORY / "template.yaml").read_bytes())
        resources = load_template(REPOSITORY / "template.yaml", {}).resources
        expanded.write_text(json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}, indent=1))
        for template in (raw, expanded):
            report = scan(template, "--config-file", str(CONFIG))
            summary = report["summary"]
            print(f"checkov, {template.name}: {summary['passed']} passed, {summary['failed']} failed", flush=True)
            for finding in report["results"]["failed_checks"]:
                print(f"  {finding['check_id']} {finding['resource']}: {finding['check_name']}")
            failed += summary["failed"] + summary["parsing_errors"]
        # Without the configuration, skipped checks report findings if their skip is still needed.
        everything = scan(expanded, "--framework", "cloudformation", "--skip-download")["results"]["failed_checks"]
    print(f"{len(skipped)} checks are skipped (at most {MAX_SKIPS}); {CONFIG.name} has the reasons")
    if needless := set(skipped) - {finding["check_id"] for finding in everything}:
        print(f"{', '.join(sorted(needless))} would find nothing: remove it from {CONFIG.name}")
    return int(failed > 0 or bool(needless) or len(skipped) > MAX_SKIPS)


def scan(template: Path, *options: str) -> dict[str, Any]:
    """Returns checkov's report on a template. Runs in the template's folder, where no other configuration is found."""
    command = [str(CHECKOV), "--file", template.name, "--output", "json", *options]
    process = subprocess.run(command, cwd=template.parent, capture_output=True, text=True, check=False)
    try:
        report: dict[str, Any] = json.loads(process.stdout)
    except ValueError:
        sys.exit(f"checkov failed: {process.stderr or process.stdout}")
    return report


if __name__ == "__main__":
    sys.exit(main())
