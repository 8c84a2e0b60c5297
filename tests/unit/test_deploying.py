"""The page on deployments: its figures are the template's, and what it names is there."""

import re
from pathlib import Path

from tests.unit.template.expanded import FUNCTIONS, RAW, STATE_MACHINES, deployed
from tests.unit.template.test_alarms import ALARMS

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/deploying.md").read_text()


def test_the_rehearsals_output_is_of_this_template() -> None:
    (added, alarms) = re.findall(r"(\d+) resources added, .* in (\d+) alarms", PAGE)[0]
    (functions, machines) = re.findall(r"compared: (\d+) functions, .*, (\d+) state machine", PAGE)[0]

    assert int(added) == len(deployed())
    assert int(alarms) == len(ALARMS)
    assert (int(functions), int(machines)) == (len(FUNCTIONS), len(STATE_MACHINES))
    assert f"{functions} functions that use it" in PAGE


def test_files_that_are_named_are_there() -> None:
    for name in re.findall(r"`((?:local|tests|docs|scripts)/[\w/.]+)`", PAGE):
        assert (REPOSITORY / name).exists(), name


def test_targets_that_are_named_are_there() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()

    for target in set(re.findall(r"`make ([a-z]+)", PAGE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_no_parameter_can_replace_what_is_to_stay() -> None:
    # What CloudFormation cannot change in place: names and keys. None of it may depend on a parameter.
    table, bucket = RAW["Resources"]["TasksTable"]["Properties"], RAW["Resources"]["ImagesBucket"]["Properties"]

    assert "TableName" not in table
    assert "BucketName" not in bucket
    assert table["KeySchema"] == [{"AttributeName": "task", "KeyType": "HASH"}]
