"""Imports and calls what `sam build` made, as Lambda would: the built folders only, nothing of the source tree.

A package in the wrong folder, a forgotten dependency, an import of something that is not deployed: all of it builds
green and fails here. The build is for this machine and this Python, because another one's wheels cannot be imported.
Bytecode that Lambda would not take, and a layer that has grown, fail here too.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from local.template import load_template

PROJECT = Path(__file__).parent.parent
BUILD = PROJECT / ".aws-sam" / "smoke"
FUNCTIONS = load_template(PROJECT / "template.yaml", {}).of_type("AWS::Lambda::Function")

# PEP 552: valid by its source's hash, which nobody is to look at. Dates say nothing in SAM's archives.
UNCHECKED_HASH = 1
# Lambda fetches and unpacks it before a cold start begins. 21 MB with all of botocore, and no bytecode.
MAX_LAYER_BYTES = 10_500_000

CALL = """
import sys
sys.path[:0] = [{function!r}, {layer!r}]
import app, image_tasks
assert image_tasks.__file__.startswith({layer!r}), image_tasks.__file__
foreign = {{m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)}}
foreign = [f for f in foreign if not f.startswith(({function!r}, {layer!r}, sys.base_prefix))]
assert not foreign, foreign
if {function!r}.endswith("ReceiveCallbackFunction"):
    import os
    from image_tasks.settings import ReceiveCallbackSettings
    os.environ.update(dict.fromkeys(map(str.upper, ReceiveCallbackSettings.model_fields), "0"))
    class Context:
        function_name = memory_limit_in_mb = invoked_function_arn = aws_request_id = "smoke"
    answer = app.handler({{"pathParameters": {{"provider": "p", "token": "short"}}, "body": "{{}}"}}, Context())
    assert answer["statusCode"] == 401, answer
from image_tasks.aws_clients import AwsClients
clients = AwsClients()
for service in [name for name in vars(AwsClients) if not name.startswith("_")]:
    getattr(clients, service)()
print("ok ", {name!r}, len(sys.modules), "modules")
"""


def main() -> int:
    """Exit status 0 if every function works."""
    environment = os.environ | {
        "BUILD_FOR": "this-machine",
        "BUILD_PYTHON": sys.executable,
        "RUNTIME_PYTHON": sys.executable,
        "SAM_CLI_TELEMETRY": "0",
        "POWERTOOLS_SERVICE_NAME": "smoke",
        "POWERTOOLS_METRICS_NAMESPACE": "smoke",
    }
    environment["AWS_DEFAULT_REGION"] = "us-east-1"
    sam = Path(sys.executable).parent / "sam"
    subprocess.run([sam, "build", "--build-dir", BUILD], cwd=PROJECT, env=environment, check=True, capture_output=True)
    layer = str(BUILD / "ImageTasksLayer" / "python")
    failed = sum(map(report, (*without_valid_bytecode(BUILD), *too_large(BUILD / "ImageTasksLayer"))))
    for name in FUNCTIONS:
        call = CALL.format(name=name, function=str(BUILD / name), layer=layer)
        # -I -S: no environment, no user site, no site-packages.
        failed += subprocess.run([sys.executable, "-I", "-S", "-c", call], env=environment, check=False).returncode
    return failed


def without_valid_bytecode(build: Path) -> Iterator[str]:
    """Modules that Lambda would compile at every cold start."""
    for source in build.rglob("*.py"):
        bytecode = Path(importlib.util.cache_from_source(str(source)))
        header = bytecode.read_bytes()[:8] if bytecode.exists() else b""
        if header != importlib.util.MAGIC_NUMBER + UNCHECKED_HASH.to_bytes(4, "little"):
            yield f"no bytecode that Lambda would take: {source.relative_to(build)}"


def too_large(layer: Path) -> Iterator[str]:
    """A layer that is larger, packed, than it has to be."""
    archive = Path(shutil.make_archive(str(layer), "zip", layer))
    size = archive.stat().st_size
    if size > MAX_LAYER_BYTES:
        yield f"the layer has {size:,} bytes, packed, and should not have more than {MAX_LAYER_BYTES:,}"
    print(f"ok  the layer has {size / 1e6:.1f} MB, packed")


def report(problem: str) -> int:
    """Says what is wrong; counts as one failure."""
    print(problem, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
