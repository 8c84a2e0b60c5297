"""The sandbox of a function: it ends with its parent, and has a local URL policy and a runtime client."""

import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from catchlight.errors import ImageRejectedError, ImageUnavailableError
from catchlight.images import url_policy
from local import REPOSITORY
from local.lambda_ import python_runtime_client, sandbox
from local.lambda_.runtime import Function
from local.lambda_.runtime_api import Invocation, RuntimeApi

MakeFunction = Callable[..., Function]


def test_a_sandbox_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def handler(event, context): return 1")
    api = RuntimeApi()
    api.start()
    environment = {"AWS_LAMBDA_RUNTIME_API": api.address, "LAMBDA_TASK_ROOT": str(tmp_path), "_HANDLER": "app.handler"}
    with subprocess.Popen(
        [sys.executable, "-m", "local.lambda_.sandbox"], cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE
    ) as process:
        assert api.ready.wait(120)
        assert process.poll() is None
        assert process.stdin
        process.stdin.close()  # what the kernel does when a parent ends, however it ends
        assert process.wait(120) == 1
    api.close()


def test_the_local_policy_allows_exactly_the_given_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url_policy, "UrlPolicy", url_policy.UrlPolicy)  # restored after the test
    sandbox.install_local_url_policy(sandbox.parse_image_hosts("127.0.0.1:8001,127.0.0.1:8002"))
    policy = url_policy.UrlPolicy()

    assert policy.check_url("http://127.0.0.1:8001/a.png", []) == "127.0.0.1"
    assert policy.resolve("127.0.0.1", 8002) == ["127.0.0.1"]
    for url in (
        "http://127.0.0.1:8003/a.png",
        "http://127.0.0.1/a.png",
        "https://127.0.0.1:8001/a.png",
        "http://user@127.0.0.1:8001/a.png",
        "http://localhost:8001/a.png",
        "http://images.example.com/a.png",
        "http://127.0.0.1:x/a.png",
        "http://127.0.0.1:8001/a\\b.png",
        "http://127.0.0.1:8001/a b.png",
        "http://127.0.0.1:8001/".ljust(8193, "a"),
    ):
        with pytest.raises(ImageRejectedError):
            policy.check_url(url, ["*"])
    with pytest.raises(ImageUnavailableError):
        policy.resolve("127.0.0.1", 8003)


def test_an_unlisted_host_is_allowed_if_its_name_matches_the_hosts_of_the_provider(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(url_policy, "UrlPolicy", url_policy.UrlPolicy)  # restored after the test
    sandbox.install_local_url_policy(sandbox.parse_image_hosts("127.0.0.1:8001,images.unlisted.test:8001=unlisted"))
    policy = url_policy.UrlPolicy()
    url = "http://images.unlisted.test:8001/a.png"

    assert policy.check_url(url, ["*"]) == "images.unlisted.test"
    assert policy.check_url(url, ["*.unlisted.test"]) == "images.unlisted.test"
    assert policy.resolve("images.unlisted.test", 8001) == ["127.0.0.1"]
    with pytest.raises(ImageRejectedError, match=r"images\.unlisted\.test is not a host"):
        policy.check_url(url, ["*.example.com"])
    with pytest.raises(ImageRejectedError):
        policy.check_url("http://images.unlisted.test:8002/a.png", ["*"])


def test_the_deployed_policy_refuses_this_machine() -> None:
    with pytest.raises(ImageRejectedError):
        url_policy.UrlPolicy().check_url("http://127.0.0.1:8001/a.png", ["*"])


def test_the_python_runtime_client_implements_the_runtime_api(monkeypatch: pytest.MonkeyPatch) -> None:
    api = RuntimeApi()
    api.start()
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", api.address)
    monkeypatch.setattr(python_runtime_client, "_connection", None)
    python_runtime_client.initialize_client("tests")
    good, bad = (Invocation(b'{"a": 1}', "arn:x", 5) for _ in range(2))

    api.hand_over(good)
    body, headers = python_runtime_client.next()
    python_runtime_client.post_invocation_result(
        headers["Lambda-Runtime-Aws-Request-Id"], b'"done"', "application/json"
    )
    api.hand_over(bad)
    python_runtime_client.next()
    python_runtime_client.post_error(bad.request_id, '{"errorType": "X"}', "{}")

    assert json.loads(body) == {"a": 1}
    assert headers["Lambda-Runtime-Invoked-Function-Arn"] == "arn:x"
    assert good.outcome
    assert good.outcome.payload == b'"done"'
    assert bad.outcome
    assert bad.outcome.function_error == "Unhandled"
    with pytest.raises(RuntimeError, match="400"):
        python_runtime_client.post_error("unknown", "{}", "{}")
    connection = python_runtime_client._connection
    assert connection
    connection.close()
    api.close()


def test_the_python_runtime_client_replaces_a_missing_native_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "runtime_client", None)  # makes the import fail
    sandbox.install_runtime_client()
    assert sys.modules["runtime_client"] is python_runtime_client


def test_functions_run_without_the_native_client(make_function: MakeFunction, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "runtime_client.py").write_text("raise ImportError('it is compiled on Linux only')")
    function = make_function(
        """
        import runtime_client
        def handler(event, context):
            if event:
                raise ValueError(event)
            return runtime_client.__name__
        """,
        layers=(layer,),
    )

    assert function.invoke(b"{}").payload == b'"local.lambda_.python_runtime_client"'
    assert json.loads(function.invoke(b"1").payload)["errorType"] == "ValueError"
    assert function.invoke(b"{}").payload == b'"local.lambda_.python_runtime_client"'


@pytest.mark.skipif(importlib.util.find_spec("runtime_client") is None, reason="no native runtime client here")
def test_the_native_client_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "runtime_client", raising=False)
    sandbox.install_runtime_client()
    assert sys.modules["runtime_client"] is not python_runtime_client


def test_the_clock_of_a_function_can_be_shifted(make_function: MakeFunction) -> None:
    source = """
        from catchlight.models import utc_now

        def handler(event, context):
            return utc_now().timestamp()
        """
    function = make_function(source, layers=(REPOSITORY / "layers" / "catchlight" / "python",))
    before = float(function.invoke(b"{}").payload)

    function.shift_clock(8 * 3600)

    assert 8 * 3600 <= float(function.invoke(b"{}").payload) - before < 9 * 3600


@pytest.mark.parametrize("name", sandbox.NOT_IN_LAMBDA)
def test_tests_do_not_find_the_packages_that_lambda_lacks(name: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)
