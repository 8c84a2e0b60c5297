"""Rehearses a deployment: `sam build` and `sam deploy` against an endpoint on this machine, several times.

What is shown: everything is packaged and uploaded; the packaged template expands; the parameters arrive and stay; a
build of the same sources deploys nothing; a change deploys what it has to, and nothing else. docs/deploying.md says
what only AWS can show. Works on a copy of this checkout; like `make build` it needs a package registry, for the layer.
"""

import io
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.moto_server import MotoServer
from local.rehearsed_cloudformation import Rehearsal, RehearsedChange, rehearsed_cloudformation
from local.template import REGION

PROJECT = Path(__file__).parent.parent
PARTS = ("template.yaml", "samconfig.toml", "functions", "layers", "statemachines")
STACK = "catchlight"  # samconfig.toml's
ARTIFACTS = "artifacts"
ALARM_TOPIC = f"arn:aws:sns:{REGION}:123456789012:operators"
# What Lambda takes of a function and its layers, unzipped.
MAX_UNZIPPED_BYTES = 250 * 1024 * 1024


@dataclass(frozen=True)
class Rehearser:
    """A copy of the project, and the endpoint that it is deployed to."""

    copy: Path
    server: MotoServer
    rehearsal: Rehearsal

    def build(self) -> None:
        """`make build`."""
        self._sam("build")

    def deploy(self, **parameters: str) -> list[RehearsedChange]:
        """`sam deploy` with samconfig.toml; returns what it changed. Parameters that are not named keep their value."""
        self.rehearsal.changes.clear()
        overrides = [f"{name}={value}" for name, value in parameters.items()]
        self._sam(
            *("deploy", "--no-confirm-changeset", "--no-progressbar"),
            # Else SAM makes a bucket of its own by a stack whose tags moto forgets.
            *("--no-resolve-s3", "--s3-bucket", ARTIFACTS),
            *(("--parameter-overrides", *overrides) if overrides else ()),
        )
        return self.rehearsal.changes[STACK]

    def of_type(self, type_name: str) -> dict[str, dict[str, Any]]:
        """Properties of what is deployed of a type, by logical id."""
        deployed = self.rehearsal.resources[STACK]
        return {name: resource["Properties"] for name, resource in deployed.items() if resource["Type"] == type_name}

    def artifact(self, location: dict[str, str]) -> bytes:
        """What was uploaded for a Code, Content or DefinitionS3Location property."""
        key = location.get("S3Key") or location["Key"]
        bucket = location.get("S3Bucket") or location["Bucket"]
        body: bytes = self.server.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def _sam(self, *arguments: str) -> None:
        environment = os.environ | {
            "AWS_ENDPOINT_URL": self.server.url,
            "AWS_ACCESS_KEY_ID": "rehearsal",
            "AWS_SECRET_ACCESS_KEY": "rehearsal",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "SAM_CLI_TELEMETRY": "0",
            "BUILD_PYTHON": sys.executable,
        }
        environment.pop("AWS_PROFILE", None)
        sam = Path(sys.executable).parent / "sam"
        run = subprocess.run(
            [str(sam), *arguments], cwd=self.copy, env=environment, check=False, capture_output=True, text=True
        )
        if run.returncode:
            sys.exit(f"sam {arguments[0]} failed:\n{run.stdout[-4000:]}\n{run.stderr[-4000:]}")


def main() -> int:
    """Exit status 0 if the rehearsal went as it has to."""
    started = time.monotonic()
    logging.getLogger("samtranslator").setLevel(logging.ERROR)  # of metrics of its own that it could not send
    with rehearser() as it:
        it.build()
        changes = it.deploy(AlarmTopicArn=ALARM_TOPIC)
        expect({change.action for change in changes} == {"Add"}, f"the first deployment only adds: {changes}")
        say(f"sam build, sam deploy: {len(changes)} resources added, with CAPABILITY_IAM and {check_parameters(it)}")
        say(f"  uploaded, opened and compared: {check_artifacts(it)}")

        it.build()
        expect_changes(it.deploy(), {})
        say("built again from the same sources, deployed: nothing to change")

        append_comment(it.copy / "functions/receive_callback/app.py")
        it.build()
        expect_changes(
            it.deploy(CallbackRateLimit="50"),
            {
                "ReceiveCallbackFunction": ["Code"],
                "ReceiveCallbackFunctionAliaslive": ["FunctionVersion"],
                "CallbackApiApiGatewayDefaultStage": ["DefaultRouteSettings"],
            },
            anew="AWS::Lambda::Version",
        )
        expect(it.rehearsal.parameters[STACK]["AlarmTopicArn"] == ALARM_TOPIC, "a parameter that is not named stays")
        say("one function and one parameter changed, deployed: what they are for, and the alarm topic stays")

        # Another description: CloudFormation makes the version anew, and the alias follows.
        (version,) = it.of_type("AWS::Lambda::Version")
        expect_changes(
            it.deploy(SnapStart="PublishedVersions"),
            {"ReceiveCallbackFunction": ["SnapStart"], version: ["Description"]},
        )
        say("a parameter of the callback function changed, deployed: the function and its version, nothing else")

        append_comment(it.copy / "layers/image_tasks/python/image_tasks/models.py")
        it.build()
        changes = it.deploy()
        functions = it.of_type("AWS::Lambda::Function")
        expect_changes(
            changes,
            {name: ["Layers"] for name in functions} | {version: ["Description"]},
            anew="AWS::Lambda::LayerVersion",
        )
        say(f"the package changed, deployed: a new layer, {len(functions)} functions that use it, the version of one")
    say(f"{time.monotonic() - started:.0f} s. docs/deploying.md says what only AWS can show.")
    return 0


@contextmanager
def rehearser() -> Iterator[Rehearser]:
    """A copy of what is deployed from this checkout, and an endpoint on the loopback address."""
    with tempfile.TemporaryDirectory() as folder, rehearsed_cloudformation() as rehearsal:
        for part in PARTS:
            source = PROJECT / part
            if source.is_dir():
                shutil.copytree(source, Path(folder) / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder)
        server = MotoServer()
        server.start()
        try:
            server.client("s3").create_bucket(Bucket=ARTIFACTS)
            yield Rehearser(Path(folder), server, rehearsal)
        finally:
            server.stop()


def check_parameters(it: Rehearser) -> str:
    """The parameter has arrived where it is used, and nothing needs more than CAPABILITY_IAM."""
    alarms = it.of_type("AWS::CloudWatch::Alarm")
    for name, alarm in alarms.items():
        expect(alarm.get("AlarmActions") == [ALARM_TOPIC], f"{name} has the topic")
    for name, role in it.of_type("AWS::IAM::Role").items():
        expect("RoleName" not in role, f"{name} has no name of its own")
    return f"the topic in {len(alarms)} alarms"


def check_artifacts(it: Rehearser) -> str:
    """What was uploaded is what lies in the checkout, and fits into Lambda."""
    functions, layers = it.of_type("AWS::Lambda::Function"), it.of_type("AWS::Lambda::LayerVersion")
    layer_bytes = 0
    for layer in layers.values():
        files = unzipped(it.artifact(layer["Content"]))
        layer_bytes += sum(map(len, files.values()))
        for source in (it.copy / "layers/image_tasks/python/image_tasks").rglob("*.py"):
            packed = files.get(f"python/{source.relative_to(it.copy / 'layers/image_tasks/python')}")
            expect(packed == source.read_bytes(), f"the layer holds {source.name}")
        expect("python/botocore/__init__.py" in files, "the layer holds its dependencies")
    for name, function in functions.items():
        files = unzipped(it.artifact(function["Code"]))
        folder = re.sub(r"(?<!^)(?=[A-Z])", "_", name.removesuffix("Function")).lower()
        expect(files.keys() == {"app.py"}, f"{name} is one module, not {sorted(files)}")
        expect(files["app.py"] == (it.copy / "functions" / folder / "app.py").read_bytes(), f"{name} is its source")
        expect(layer_bytes + len(files["app.py"]) < MAX_UNZIPPED_BYTES, f"{name} fits into Lambda with its layer")
    machines = it.of_type("AWS::StepFunctions::StateMachine")
    sources = {path.read_bytes() for path in (it.copy / "statemachines").iterdir()}
    expect(
        {it.artifact(machine["DefinitionS3Location"]) for machine in machines.values()} == sources,
        "the state machines' definitions are their sources",
    )
    return f"{len(functions)} functions, a layer of {layer_bytes / 1e6:.0f} MB unzipped, {len(machines)} state machine"


def unzipped(archive: bytes) -> dict[str, bytes]:
    """An archive's files by their names."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist() if not name.endswith("/")}


def expect_changes(changes: list[RehearsedChange], expected: dict[str, list[str]], anew: str | None = None) -> None:
    """The changes are these modifications, of these properties, one resource of type `anew` for another, no others."""
    found = {change.logical_id: [*change.properties] for change in changes if change.type_name != anew}
    exchanged = sorted(change.action for change in changes if change.type_name == anew)
    expect(found == expected, f"changes are {expected}, found {changes}")
    expect(exchanged == (["Add", "Remove"] if anew else []), f"one {anew} for another: {exchanged}")


def expect(holds: bool, what: str) -> None:
    """Ends the rehearsal if something does not hold."""
    if not holds:
        sys.exit(f"does not hold: {what}")


def append_comment(module: Path) -> None:
    """A change of a module that changes nothing of what it does."""
    module.write_text(module.read_text() + "# changed\n")


def say(what: str) -> None:
    """Tells whoever waits."""
    print(what, flush=True)


if __name__ == "__main__":
    sys.exit(main())
