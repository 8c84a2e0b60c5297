"""The page on deployments: its figures are those of the template, and the named files and targets exist."""

import re
from pathlib import Path

from tests.unit.template.expanded import FUNCTIONS, RAW, RESOURCES, deployed

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/deploying.md").read_text()


def test_the_rehearsals_output_has_the_numbers_of_this_template() -> None:
    ((created, alarms),) = re.findall(r"first sam deploy: (\d+) resources, the topic in (\d+) alarms", PAGE)
    rehearsed = rehearsed_resources()

    assert int(created) == len(rehearsed)
    assert int(alarms) == sum(type_name == "AWS::CloudWatch::Alarm" for type_name in rehearsed)


def test_the_rehearsals_output_names_each_function_that_a_new_package_changes() -> None:
    changed = re.findall(r"the package changed: (.*)", PAGE)[0]

    assert all(name in changed for name in FUNCTIONS)


def rehearsed_resources() -> list[str]:
    """Returns the types of all resources, without those that the rehearsal leaves out."""
    return [
        RESOURCES[name]["Type"]
        for name, properties in deployed().items()
        if RESOURCES[name]["Type"] != "AWS::S3::BucketPolicy" and "Metrics" not in properties
    ]


def test_named_files_exist() -> None:
    names = re.findall(r"`((?:local|tests|docs|scripts)/[\w/.]+)`", PAGE)
    assert names
    for name in names:
        assert (REPOSITORY / name).exists(), name


def test_named_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()

    targets = set(re.findall(r"`make ([a-z]+)", PAGE))
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_no_parameter_can_cause_a_replacement_of_table_or_bucket() -> None:
    # CloudFormation cannot change names and keys in place. None of them may depend on a parameter.
    table, bucket = RAW["Resources"]["TasksTable"]["Properties"], RAW["Resources"]["ImagesBucket"]["Properties"]

    assert "TableName" not in table
    assert "BucketName" not in bucket
    assert table["KeySchema"] == [{"AttributeName": "task", "KeyType": "HASH"}]
