"""The local stack shows faults of the artefact that it runs, even if the sources are correct."""

import json
import shutil
from pathlib import Path

import httpx
import pytest

from local import REPOSITORY
from local.artefact import Artefact
from local.stack import LocalStack
from tests.integration.local.running_example import eventually

TASK_ID = "task12345"
PATIENCE_SECONDS = 300


def without_s3_parameters(built: Artefact, project: Path) -> Artefact:
    """Copies the artefact without the documentation of S3's client parameters, which botocore needs."""
    faulty = Artefact(project / ".aws-sam" / "this-machine" / "faulty")
    shutil.copytree(built.folder, faulty.folder)
    # The template names the state machine's definition in the sources.
    (project / "statemachines").symlink_to(REPOSITORY / "statemachines")
    (path,) = faulty.layer.glob("botocore/data/s3/*/service-2.json")
    model = json.loads(path.read_text())
    for parameter in model["clientContextParams"].values():
        del parameter["documentation"]
    path.write_text(json.dumps(model))
    return faulty


def submit(stack: LocalStack) -> None:
    answer = httpx.post(
        f"{stack.info['simulator_url']}/kie/api/v1/flux/kontext/generate",
        headers={"Authorization": "Bearer any", "x-simulate": "success", "x-simulate-task-id": TASK_ID},
        json={"prompt": "a lighthouse", "callBackUrl": stack.info["callback_urls"]["flux-kontext"]},
        trust_env=False,
        timeout=60,
    )
    assert answer.json()["code"] == 200, answer.text


def status(stack: LocalStack) -> str:
    key = {"task": {"S": f"flux-kontext#{TASK_ID}"}}
    found = stack.boto3_client("dynamodb").get_item(TableName=stack.info["table"], Key=key)
    return str(found["Item"]["status"]["S"])


@pytest.mark.parametrize("works", [True, False])
def test_a_faulty_artefact_fails_on_the_local_stack(works: bool, built: Artefact, tmp_path: Path) -> None:
    artefact = built if works else without_s3_parameters(built, tmp_path / "project")
    with LocalStack(state_dir=tmp_path / "state", time_scale=0.05, artefact=artefact) as stack:
        answer = httpx.post(stack.info["callback_urls"]["flux-kontext"], content=b"{}", trust_env=False, timeout=60)
        submit(stack)
        log = tmp_path / "state" / "logs" / "ArchiveImagesFunction.log"
        eventually(lambda: log.exists() and "REPORT" in log.read_text(), PATIENCE_SECONDS)  # an invocation has ended
        if works:
            eventually(lambda: status(stack) == "ARCHIVED", PATIENCE_SECONDS)
        final_status = status(stack)
        objects = stack.boto3_client("s3").list_objects_v2(Bucket=stack.info["bucket"]).get("Contents", [])

    keys = [found["Key"] for found in objects]
    # A second run of the same task writes request.json, too, if the first one was cut off after an image.
    prefixes = sorted(key.partition("/")[0] for key in keys if not (works and key.endswith("/request.json")))
    assert answer.status_code == (422 if works else 500)
    assert final_status == ("ARCHIVED" if works else "SUCCEEDED")
    # Two images, whose metadata have the request, and the unreadable delivery.
    assert prefixes == (["images"] * 2 + ["rejected"] if works else []), keys
