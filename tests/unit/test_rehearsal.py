"""Parts of the rehearsal: its changes to the template, and how it detects changes of resources."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from local.template.parse import read_template
from scripts.rehearsal import RehearsalError
from scripts.rehearsal.deployment import changes, remove_grant
from scripts.rehearsal.first_steps import EXPORT, NOT_REHEARSED, first_steps
from scripts.rehearsal.ministack_gaps import names_below_localhost, rehearsed_template

REPOSITORY = Path(__file__).parents[2]
TEMPLATE = read_template((REPOSITORY / "template.yaml").read_text())


def differences(old: Any, new: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], tuple[Any, Any]]:
    """Returns both values at each path where they differ. A missing value is None."""
    # Ref and Fn::GetAtt are values.
    if not isinstance(old, dict) or not isinstance(new, dict) or (len(old) == 1 and old.keys() != new.keys()):
        if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            old, new = ({str(at): each for at, each in enumerate(side)} for side in (old, new))
        else:
            return {} if old == new else {path: (old, new)}
    found: dict[tuple[str, ...], tuple[Any, Any]] = {}
    for key in old.keys() | new.keys():
        found |= differences(old.get(key), new.get(key), (*path, key))
    return found


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], tuple[Any, Any]]:
    return differences(TEMPLATE, rehearsed_template(TEMPLATE, REPOSITORY, tmp_path_factory.mktemp("definitions")))


def test_only_what_ministack_refuses_is_left_out(changed: dict[tuple[str, ...], tuple[Any, Any]]) -> None:
    left_out = {path: old for path, (old, new) in changed.items() if new is None}

    metric_math = {
        ("Resources", name)
        for name, resource in TEMPLATE["Resources"].items()
        if resource["Type"] == "AWS::CloudWatch::Alarm" and "Metrics" in resource["Properties"]
    }
    others = {
        ("Resources", "ImagesBucketPolicy"),
        ("Parameters", "ProviderBaseUrls", "AllowedPattern"),
        ("Parameters", "WebhookUrl", "AllowedPattern"),
    }
    assert left_out.keys() == metric_math | others


def test_grants_are_extended_by_batches_of_messages_only(changed: dict[tuple[str, ...], tuple[Any, Any]]) -> None:
    actions = [values for path, values in changed.items() if path[-1] == "Action"]

    assert actions == [("sqs:SendMessage", ["sqs:SendMessage", "sqs:SendMessageBatch"])] * 4


def test_resources_of_grants_are_the_same_in_another_form(changed: dict[tuple[str, ...], tuple[Any, Any]]) -> None:
    resources = [values for path, values in changed.items() if "Resource" in path]
    assert resources
    for old, new in resources:
        # In AWS both are the secret's ARN.
        secret = old if isinstance(old, str) else old["Ref"]
        assert TEMPLATE["Resources"][secret]["Type"] == "AWS::SecretsManager::Secret"
        assert new == {"Fn::GetAtt": [secret, "Id"]}


def test_nothing_else_changes(changed: dict[tuple[str, ...], tuple[Any, Any]]) -> None:
    known = {"CodeUri", "ContentUri", "DefinitionUri", "MaximumConcurrency", "Action"}

    others = {
        path
        for path, (_, new) in changed.items()
        if new is not None and path[-1] not in known and "Resource" not in path
    }
    assert others == set()


def test_paths_name_the_same_folders(changed: dict[tuple[str, ...], tuple[Any, Any]]) -> None:
    folders = [values for path, values in changed.items() if path[-1] in ("CodeUri", "ContentUri")]
    assert len(folders) > 1
    for old, new in folders:
        assert Path(new) == REPOSITORY / old


def test_the_state_machine_is_the_same_in_json(tmp_path: Path) -> None:
    copy = rehearsed_template(TEMPLATE, REPOSITORY, tmp_path)

    machine = copy["Resources"]["PollTasksStateMachine"]["Properties"]
    definition = json.loads(Path(machine["DefinitionUri"]).read_text())
    assert definition == read_template((REPOSITORY / "statemachines/poll_tasks.asl.yaml").read_text())


def test_only_the_named_grant_is_removed() -> None:
    template = json.loads(json.dumps(TEMPLATE))

    remove_grant(template, "WriteImages")

    function = ("Resources", "ArchiveImagesFunction", "Properties", "Policies", "0", "Statement")
    ((path, (old, new)),) = differences(TEMPLATE, template).items()
    assert path == function
    assert [statement["Sid"] for statement in old if statement not in new] == ["WriteImages"]


def test_the_error_for_an_unknown_grant_lists_the_existing_ones() -> None:
    with pytest.raises(RehearsalError, match=r"Sid Nonsense.*WriteImages"):
        remove_grant(json.loads(json.dumps(TEMPLATE)), "Nonsense")


def test_changes_are_listed_by_resource_and_property() -> None:
    before = {"Same": {"a": 1}, "Gone": {}, "Other": {"a": 1, "b": 2, "c": 3}}
    after = {"Same": {"a": 1}, "New": {}, "Other": {"a": 1, "b": 3, "d": 4}}

    assert changes(before, after) == {"Gone": {"removed"}, "New": {"added"}, "Other": {"b", "c", "d"}}


def test_names_below_localhost_resolve_to_this_machine() -> None:
    with names_below_localhost():
        addresses = {info[4][0] for info in socket.getaddrinfo("abc.execute-api.localhost", 80)}

    assert addresses == {"127.0.0.1"}


def test_the_first_steps_are_those_of_the_readme() -> None:
    steps = first_steps()

    assert [step.split()[1] for step in steps if step.startswith("catchlight")] == [
        *("keys", "keys", "doctor", "submit", "download")
    ]
    assert EXPORT in steps
    assert set(steps) >= NOT_REHEARSED
