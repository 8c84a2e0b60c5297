"""The local stack runs the built artefact: a fault in it has an effect although the sources are correct."""

import json
import shutil
from pathlib import Path

import httpx
import pytest

from local import REPOSITORY
from local.artefact import Artefact
from local.stack import LocalStack
from tests.waiting import eventually

TASK_ID = "task12345"
TIMEOUT_SECONDS = 300


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
    response = httpx.post(
        f"{stack.info['simulator_url']}/kie/api/v1/flux/kontext/generate",
        headers={"Authorization": "Bearer any", "x-simulate": "success", "x-simulate-task-id": TASK_ID},
        json={"prompt": "a lighthouse", "callBackUrl": stack.info["callback_urls"]["flux-kontext"]},
        trust_env=False,
        timeout=60,
    )
    assert response.json()["code"] == 200, response.text


def status(stack: LocalStack) -> str:
    key = {"task": {"S": f"flux-kontext#{TASK_ID}"}}
    found = stack.boto3_client("dynamodb").get_item(TableName=stack.info["table"], Key=key)
    return str(found["Item"]["status"]["S"])


@pytest.mark.parametrize("is_correct", [True, False])
def test_the_local_stack_archives_with_a_correct_artefact_only(
    is_correct: bool, built: Artefact, tmp_path: Path
) -> None:
    artefact = built if is_correct else without_s3_parameters(built, tmp_path / "project")
    with LocalStack(state_dir=tmp_path / "state", time_scale=0.05, artefact=artefact) as stack:
        response = httpx.post(stack.info["callback_urls"]["flux-kontext"], content=b"{}", trust_env=False, timeout=60)
        submit(stack)
        log = tmp_path / "state" / "logs" / "ArchiveImagesFunction.log"
        # Lambda's REPORT line means that the first invocation has ended.
        eventually(lambda: log.exists() and "REPORT" in log.read_text(), TIMEOUT_SECONDS)
        if is_correct:
            eventually(lambda: status(stack) == "ARCHIVED", TIMEOUT_SECONDS)
        final_status = status(stack)
        objects = stack.boto3_client("s3").list_objects_v2(Bucket=stack.info["bucket"]).get("Contents", [])

    keys = [found["Key"] for found in objects]
    # A second run of the same task also writes request.json if the first one was interrupted after an image.
    prefixes = sorted(key.partition("/")[0] for key in keys if not (is_correct and key.endswith("/request.json")))
    assert response.status_code == (422 if is_correct else 500)
    assert final_status == ("ARCHIVED" if is_correct else "SUCCEEDED")
    # Two images, with the request in their metadata, and the unreadable delivery.
    assert prefixes == (["images"] * 2 + ["rejected"] if is_correct else []), keys
