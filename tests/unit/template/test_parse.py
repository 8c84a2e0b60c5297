"""The template is parsed as SAM parses it."""

import json
from pathlib import Path

import pytest
import yaml
from samcli.yamlhelper import yaml_parse

from local.template.parse import read_template

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "text",
    [
        (REPOSITORY / "template.yaml").read_text(),
        "A: !Ref B\nC: !GetAtt D.Arn.E\nF: !Sub [a, {G: !Ref H}]\nI: !If [J, !Ref K, !Join ['', [l, m]]]\n",
        "Version: 2012-10-17\nN: !Condition O\nP: !Equals [!Ref Q, '']\nR: 010\n",
    ],
    ids=["template", "functions", "values"],
)
def test_the_result_is_that_of_sam(text: str) -> None:
    assert json.dumps(read_template(text)) == json.dumps(yaml_parse(text))


def test_invalid_yaml_is_an_error() -> None:
    with pytest.raises(yaml.YAMLError):
        read_template("a: [")
