"""The search for canary secrets finds them wherever they are written, and its report does not repeat them."""

import os

import pytest

from local.stack import LOCAL_API_KEY
from tests.canary_secrets import CANARIES, find_leaks
from tests.integration.conftest import REPOSITORY

# Concatenated from two halves, so that no output of these tests contains it.
SECRET = "known" + "OnlyInside"
PREFIX = 'from tests.canary_secrets import canary\nSECRET = canary("made up", "known" + "OnlyInside")\n'

WAYS = {
    "stdout": "def test_it(): print(SECRET)",
    "stderr": "import sys\ndef test_it(): print('x' + SECRET + 'x', file=sys.stderr)",
    "a file descriptor": "import os\ndef test_it(): os.write(1, SECRET.encode())",
    "a child": "import subprocess\ndef test_it(): subprocess.run(['echo', SECRET])",
    "output that the test captures": "def test_it(capsys):\n    print(SECRET)\n    assert capsys.readouterr().out",
    "a log message": "import logging\ndef test_it(): logging.getLogger('x').warning('it is %s', SECRET)",
    "a log's extra": "import logging\ndef test_it(): logging.getLogger('x').warning('it', extra={'key': SECRET})",
    "a traceback": (
        "import logging\n"
        "def test_it():\n"
        "    try:\n        raise ValueError(SECRET)\n"
        "    except ValueError: logging.getLogger('x').exception('failed')"
    ),
    "the setup": "import pytest\n@pytest.fixture\ndef it(): print(SECRET)\ndef test_it(it): pass",
    "the teardown": "import pytest\n@pytest.fixture\ndef it():\n    yield\n    print(SECRET)\ndef test_it(it): pass",
    "a log file": "def test_it(tmp_path):\n    (tmp_path / 'logs').mkdir()\n"
    "    (tmp_path / 'logs' / 'api.log').write_text('a\\n' + SECRET)",
    "a log file, encoded": "import base64\ndef test_it(tmp_path):\n"
    "    (tmp_path / 'api.log').write_text(base64.b64encode(('x\\\\/' + SECRET).encode()).decode())",
    "a callback token in a path": "def test_it(): print('POST /callbacks/acedata/' + 'aZ09' * 12)",
    "beside half a surrogate pair": 'def test_it(): print(r"\\ud800\\u006b" + SECRET[1:])',
    "a log message, encoded": "from urllib.parse import quote\ndef test_it(): print(quote('/' + SECRET, safe=''))",
    "an object": "def test_it(aws):\n    aws('s3').put_object(Bucket='stored', Key='x', Body=SECRET.encode())",
    "an object's metadata": (
        "def test_it(aws):\n    aws('s3').put_object(Bucket='stored', Key='x', Body=b'', Metadata={'by': SECRET})"
    ),
    "base64 in JSON in an object": (
        "import base64, json\n"
        "def test_it(aws):\n"
        "    body = base64.b64encode(json.dumps({'x': '\\\\/' + SECRET}).encode()).decode()\n"
        "    aws('s3').put_object(Bucket='stored', Key='x', Body=json.dumps({'body': body}).encode())"
    ),
    "an overwritten object": (
        "def test_it(aws):\n"
        "    aws('s3').put_bucket_versioning(Bucket='stored', VersioningConfiguration={'Status': 'Enabled'})\n"
        "    for body in (SECRET, 'x'): aws('s3').put_object(Bucket='stored', Key='x', Body=body.encode())"
    ),
    "an item": (
        "def test_it(aws):\n"
        "    aws('dynamodb').put_item(TableName='stored', Item={'x': {'S': 'a'}, 'y': {'M': {'z': {'S': SECRET}}}})"
    ),
    "a message": (
        "def test_it(aws):\n"
        "    url = aws('sqs').create_queue(QueueName='stored')['QueueUrl']\n"
        "    aws('sqs').send_message(QueueUrl=url, MessageBody='x' + SECRET)"
    ),
    "an event": (
        "import json\n"
        "def test_it(aws):\n"
        "    event = {'Source': 'x', 'DetailType': 'x', 'Detail': json.dumps({'x': SECRET})}\n"
        "    aws('events').put_events(Entries=[event])"
    ),
}
LOG_FILES = {"a log file": "test_it0/logs/api.log", "a log file, encoded": "test_it1/api.log"}
AWS = """
import boto3, moto, pytest
@pytest.fixture
def aws():
    with moto.mock_aws():
        boto3.client('s3').create_bucket(Bucket='stored')
        key = {'AttributeName': 'x', 'AttributeType': 'S'}, {'AttributeName': 'x', 'KeyType': 'HASH'}
        boto3.client('dynamodb').create_table(
            TableName='stored', AttributeDefinitions=key[:1], KeySchema=key[1:], BillingMode='PAY_PER_REQUEST'
        )
        yield boto3.client
"""


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A separate pytest run, with this plugin and xdist only."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PYTEST_ADDOPTS", "")
    # Other installed plugins, such as Hypothesis, take longer to load than these runs need.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyprojecttoml('[tool.pytest.ini_options]\naddopts = "-p tests.canary_secrets -p xdist"')
    return pytester


@pytest.mark.parametrize(
    ("ways", "workers"),
    [
        pytest.param(list(WAYS), 0, id="in one process"),
        # Workers run the same search, and send their findings as text.
        pytest.param(["stdout", "a log file", "beside half a surrogate pair"], 2, id="in workers"),
    ],
)
def test_a_secret_is_found_wherever_it_is_written(inner: pytest.Pytester, ways: list[str], workers: int) -> None:
    if workers == 0:
        inner.makeconftest(AWS)
    for number, way in enumerate(ways):
        inner.makepyfile(**{f"test_way{number}": PREFIX + WAYS[way]})

    result = inner.runpytest_subprocess("-q", "-n", str(workers))

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=len(ways))
    reported = [line for line in result.outlines if line.startswith(("made up in ", "a path with a token in "))]
    for number, way in enumerate(ways):
        place = LOG_FILES.get(way, f"test_way{number}.py::test_it")
        assert [line for line in reported if place in line], way
    assert len(reported) == len(ways)
    assert SECRET not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_without_leaks_passes(inner: pytest.Pytester, workers: int) -> None:
    inner.makepyfile(PREFIX + "import logging\ndef test_it(): logging.getLogger('x').warning('it is %s', SECRET[:-1])")

    result = inner.runpytest_subprocess("-q", "-n", str(workers))

    assert result.ret == pytest.ExitCode.OK
    assert "canary secrets" not in result.stdout.str()


def test_a_worker_without_a_report_fails_the_run(inner: pytest.Pytester) -> None:
    inner.makepyfile(PREFIX + "def test_it(pytestconfig): pytestconfig.workeroutput['odd'] = '\\ud800'")

    result = inner.runpytest_subprocess("-q", "-n", "1")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines("worker gw0 ended without a report of its leaks")


def test_a_run_with_a_leak_and_a_failing_test_fails(inner: pytest.Pytester) -> None:
    inner.makepyfile(PREFIX + "def test_it():\n    print(SECRET)\n    assert False")

    assert inner.runpytest_subprocess("-q", "--tb=no", "--show-capture=no").ret == pytest.ExitCode.TESTS_FAILED


def test_the_report_of_a_leak_has_no_secret() -> None:
    everything = " ".join(CANARIES)

    leaks = list(find_leaks(everything, "somewhere"))

    assert {leak.name for leak in leaks} == set(CANARIES.values())
    assert not [secret for secret in CANARIES for leak in leaks if secret in str(leak)]


def test_the_local_stacks_key_is_a_canary() -> None:
    assert LOCAL_API_KEY in CANARIES
