"""Imports and calls what `sam build` made, as Lambda would: the built folders only, nothing of the source tree.

A package in the wrong folder, a forgotten dependency, an import of something that is not deployed: all of it builds
green and fails here. The build is for this machine and this Python, because another one's wheels cannot be imported.
"""

import os
import subprocess
import sys
from pathlib import Path

from local.template import load_template

PROJECT = Path(__file__).parent.parent
BUILD = PROJECT / ".aws-sam" / "smoke"
FUNCTIONS = load_template(PROJECT / "template.yaml", {}).of_type("AWS::Lambda::Function")

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
print("ok ", {name!r}, len(sys.modules), "modules")
"""


def main() -> int:
    """Exit status 0 if every function works."""
    environment = os.environ | {
        "BUILD_FOR": "this-machine",
        "BUILD_PYTHON": sys.executable,
        "SAM_CLI_TELEMETRY": "0",
        "POWERTOOLS_SERVICE_NAME": "smoke",
        "POWERTOOLS_METRICS_NAMESPACE": "smoke",
    }
    environment["AWS_DEFAULT_REGION"] = "us-east-1"
    sam = Path(sys.executable).parent / "sam"
    subprocess.run([sam, "build", "--build-dir", BUILD], cwd=PROJECT, env=environment, check=True, capture_output=True)
    layer = str(BUILD / "ImageTasksLayer" / "python")
    failed = 0
    for name in FUNCTIONS:
        call = CALL.format(name=name, function=str(BUILD / name), layer=layer)
        # -I -S: no environment, no user site, no site-packages.
        failed += subprocess.run([sys.executable, "-I", "-S", "-c", call], env=environment, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
