"""Checks the output of `sam build` before deployment: its contents, and every call that the functions make to AWS.

    python -m scripts.smoke

The build for this machine is compared with its sources and its functions are called. The build for Lambda, if there is
one, is only compared with its sources, because wheels for another processor do not run here. The exit status is 0 if
no problem is found.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from local.environment import ignore_user_settings

if __name__ == "__main__":  # before anything imports boto3 or moto
    ignore_user_settings()

from local import REPOSITORY, LocalStackError
from local.artefact import Artefact, built_artefact, source_files
from scripts.smoke.calls import check_calls
from scripts.smoke.contents import MAX_LAYER_BYTES, Build, check_contents, lambda_target, target_here
from scripts.smoke.imports import check_imports
from scripts.try_wheel import find_python


def main() -> int:
    """Runs all checks and returns the exit status: 0 if no problem is found."""
    try:
        artefact = built_artefact(print)
    except LocalStackError as exc:
        return report("build", [str(exc)])
    build = Build(artefact.folder, REPOSITORY, target_here())
    problems = report("the build for this machine contains exactly its sources and wheels", check_contents(build))
    problems += report("every module of the package can be imported", check_imports(build.layer))
    problems += report(
        "the functions make exactly the AWS calls that the template grants",
        check_calls(build.folder, build.layer),
    )
    problems += report("the layer is below its size limit", too_large(build.layer.parent))
    problems += check_lambda_build(REPOSITORY / ".aws-sam" / "build")
    return min(problems, 1)


def check_lambda_build(folder: Path) -> int:
    """Checks the output of `make build`, unless it is older than its sources. Returns the number of problems."""
    if not folder.is_dir() or is_outdated(folder):
        print("--    the build for Lambda is missing or outdated, so it is not checked. Create it with `make build`.")
        return 0
    has_bytecode = bool(find_python("3.13"))  # the interpreter that compiles it
    build = Build(folder, REPOSITORY, lambda_target(has_bytecode=has_bytecode))
    problems = report("the build for Lambda contains exactly its sources and wheels", check_contents(build))
    return problems + report("the layer is below its size limit", too_large(build.layer.parent))


def is_outdated(folder: Path) -> bool:
    """Whether a source has changed since the build."""
    changed = max(file.stat().st_mtime for file in source_files(REPOSITORY))
    template = Artefact(folder).template
    return not template.is_file() or template.stat().st_mtime < changed


def too_large(layer: Path) -> Iterator[str]:
    """Yields a problem if the zipped layer is larger than `MAX_LAYER_BYTES`."""
    with tempfile.TemporaryDirectory() as scratch:
        size = Path(shutil.make_archive(str(Path(scratch, "layer")), "zip", layer)).stat().st_size
    print(f"--    the zipped layer has {size / 1e6:.1f} MB")
    if size > MAX_LAYER_BYTES:
        yield (
            f"the zipped layer has {size:,} bytes; the limit is {MAX_LAYER_BYTES:,}. "
            "Slim the dependency that has grown, or raise MAX_LAYER_BYTES in scripts/smoke/contents.py."
        )


def report(check: str, problems: Iterable[str]) -> int:
    """Prints the outcome of a check and returns the number of its problems."""
    found = list(problems)
    print(f"{'FAIL' if found else 'ok  '}  {check}", flush=True)
    for problem in found:
        print(f"    {problem}", file=sys.stderr)
    return len(found)


if __name__ == "__main__":
    sys.exit(main())
