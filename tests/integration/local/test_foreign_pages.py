"""Web pages in a browser on this machine, and other users of the machine, cannot access the local stack."""

import http.client
import select
import socket
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from catchlight.client.local_state import LOCK_FILE
from local.http.api import HttpApi, Stage
from local.lambda_.logs import LogFolder
from local.lambda_.runtime_api import Invocation, RuntimeApi
from local.loopback import LoopbackHandler, LoopbackServer
from local.moto import server as moto_server
from local.moto.server import MotoServer
from local.simulator import Simulator
from local.simulator.scenarios import UNLISTED_HOST
from local.state_dir import owned, published

FOREIGN: dict[str, Mapping[str, str]] = {
    "a rebound name": {"Host": "evil.example"},
    "a rebound name with the port": {"Host": "evil.example:{port}"},
    "a name that begins with the address": {"Host": "127.0.0.1.evil.example"},
    "another address of this machine": {"Host": "0.0.0.0:{port}"},
    "another origin": {"Origin": "https://evil.example"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "a sandboxed page of any origin": {"Origin": "null"},
    "another site": {"Sec-Fetch-Site": "cross-site"},
    "another port, without Origin": {"Sec-Fetch-Site": "same-site"},
}
OWN: dict[str, Mapping[str, str]] = {
    "a program": {},
    "the name localhost": {"Host": "localhost:{port}"},
    "typed by the user": {"Sec-Fetch-Site": "none"},
    "a page of this server": {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:{port}"},
}


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    api = HttpApi(0, LogFolder(tmp_path_factory.mktemp("logs")))
    api.serve([], Stage(), {})
    moto, runtime_api = MotoServer(), RuntimeApi()
    with ExitStack() as stack:
        simulator = stack.enter_context(Simulator())
        for server in (moto, runtime_api):
            server.start()
            stack.callback(server.stop)
        stack.callback(api.stop)
        yield {
            "api": api.port,
            "moto": moto.port,
            "simulator": int(simulator.url.rpartition(":")[2]),
            "runtime api": runtime_api.port,
        }


SERVERS = ["api", "moto", "simulator", "runtime api"]


def response(port: int, headers: Mapping[str, str], path: str = "/elsewhere") -> httpx.Response:
    formatted = {name: value.format(port=port) for name, value in headers.items()}
    return httpx.get(f"http://127.0.0.1:{port}{path}", headers=formatted, trust_env=False, timeout=60)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
def test_a_page_of_another_site_is_refused(ports: dict[str, int], server: str, headers: Mapping[str, str]) -> None:
    refused = response(ports[server], headers)

    assert refused.status_code == 403
    assert refused.text.endswith(("refused.\n", "not that of this server.\n"))
    assert not [name for name in refused.headers if name.startswith("access-control")]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("headers", OWN.values(), ids=OWN)
def test_programs_and_own_pages_are_served(ports: dict[str, int], server: str, headers: Mapping[str, str]) -> None:
    served = response(ports[server], headers)

    assert "refused" not in served.text
    assert "Host header" not in served.text


def test_the_simulator_serves_requests_for_its_second_host_name(ports: dict[str, int]) -> None:
    assert response(ports["simulator"], {"Host": f"{UNLISTED_HOST}:{{port}}"}, "/").status_code == 200


@pytest.mark.parametrize(
    "path", ["/moto-api/reset", "//moto-api/reset", "/moto-api/recorder/start-recording", "/Moto-Api/"]
)
def test_the_control_api_of_moto_is_not_served(ports: dict[str, int], path: str) -> None:
    url = f"http://127.0.0.1:{ports['moto']}"

    assert httpx.post(f"{url}{path}", trust_env=False, timeout=60).status_code == 403


def test_moto_lets_no_origin_read_its_responses(ports: dict[str, int]) -> None:
    own = response(ports["moto"], {"Origin": "http://127.0.0.1:{port}"}, "/")

    assert own.status_code == 200
    assert "access-control-allow-origin" not in own.headers


def test_the_message_for_a_failed_request_does_not_contain_its_path(capfd: pytest.CaptureFixture[str]) -> None:
    class Handler(LoopbackHandler):
        def do_GET(self) -> None:  # noqa: N802
            raise ValueError(self.path)

    server = LoopbackServer(Handler)
    server.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest("GET", "/secret")
    connection.endheaders()
    with pytest.raises(http.client.RemoteDisconnected):
        connection.getresponse()
    connection.close()
    server.stop()

    printed = capfd.readouterr()
    assert printed.err.startswith("a request failed: ValueError in ")
    assert printed.err.count("\n") == 1
    assert "secret" not in printed.out + printed.err


def test_idle_connections_are_closed() -> None:
    class Handler(LoopbackHandler):
        timeout = 0.05

    assert LoopbackHandler.timeout is not None
    server = LoopbackServer(Handler)
    server.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.connect()

    assert connection.sock.recv(1) == b""
    connection.close()
    server.stop()


def connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    # The request is incomplete: the connection counts as idle.
    connection.sendall(b"GET /")
    return connection


@pytest.mark.parametrize("server", SERVERS)
def test_idle_connections_are_bounded_in_number(
    ports: dict[str, int], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (LoopbackServer, RuntimeApi, moto_server._Server):
        monkeypatch.setattr(kind, "max_idle_connections", 3)
    connections = [connected(ports[server]) for _ in range(8)]

    # Five of the connections are closed. Which ones depends on the order in which the server accepted them.
    ended = select_ended(connections, 5)
    assert len(ended) == 5
    assert response(ports[server], {}).status_code
    for connection in connections:
        connection.close()


def select_ended(connections: list[socket.socket], number: int) -> list[socket.socket]:
    """Waits until the server has closed at least this many connections, and returns them."""
    ended: list[socket.socket] = []
    while len(ended) < number:
        readable, _, _ = select.select([each for each in connections if each not in ended], [], [], 60)
        assert readable, f"only {len(ended)} connections were closed"
        ended += [connection for connection in readable if connection.recv(1) == b""]
    return ended


def test_a_connection_with_a_request_in_progress_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    has_request, may_respond = threading.Event(), threading.Event()

    class Handler(LoopbackHandler):
        def do_GET(self) -> None:  # noqa: N802
            has_request.set()
            may_respond.wait(60)
            self.answer(200, b"late", [])

    monkeypatch.setattr(LoopbackServer, "max_idle_connections", 1)
    server = LoopbackServer(Handler)
    server.start()
    active = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    active.request("GET", "/")
    assert has_request.wait(60)
    idle = [connected(server.port) for _ in range(3)]
    select_ended(idle, 2)
    may_respond.set()

    assert active.getresponse().read() == b"late"
    active.close()
    for connection in idle:
        connection.close()
    server.stop()


# ------------------------------------------------------------------------------------------------ other users


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("is_new", [True, False])
def test_only_the_owner_reads_the_state_folder(tmp_path: Path, is_new: bool) -> None:
    folder = tmp_path / ".local"
    if not is_new:
        folder.mkdir(mode=0o755)
        (folder / LOCK_FILE).touch(mode=0o644)
    with owned(folder), published(folder, {"callback_urls": {}}):
        LogFolder(folder / "logs").write("api", "line")

        assert mode(folder) == mode(folder / "logs") == 0o700
        files = {path.name: mode(path) for path in folder.rglob("*") if path.is_file()}
        assert {"stack.json", "api.log"} <= files.keys()
        assert set(files.values()) == {0o600}


def test_the_runtime_api_refuses_requests_without_the_secret_of_its_sandbox() -> None:
    """Other sandboxes and other processes of this machine can find the port, but not the secret."""
    one, other = RuntimeApi(), RuntimeApi()
    for api in (one, other):
        api.start()
    invocation = Invocation(b"{}", "arn:x", 5)
    one.hand_over(invocation)

    path = "2018-06-01/runtime/invocation"
    for secret in ("", "/", f"/{other.secret}", f"/{one.secret[:-1]}"):
        for method, end in (("GET", "next"), ("POST", f"{invocation.request_id}/response")):
            url = f"http://127.0.0.1:{one.port}{secret}/{path}/{end}"
            assert httpx.request(method, url, trust_env=False, timeout=60).status_code == 403
    assert invocation.outcome is None
    assert httpx.get(f"http://{one.address}/{path}/next", trust_env=False, timeout=60).text == "{}"
    for api in (one, other):
        api.close()


def test_a_state_folder_with_other_files_keeps_its_mode(tmp_path: Path) -> None:
    """--state-dir may name the folder of a project. The stack's own files in it are private."""
    folder = tmp_path / "project"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "README.md").touch()

    for _ in range(2):  # the second time, it has the stack's lock file
        with owned(folder), published(folder, {"callback_urls": {}}):
            assert mode(folder) == 0o755
            assert mode(folder / "stack.json") == mode(folder / LOCK_FILE) == 0o600


def test_a_shared_state_folder_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)

    with owned(folder):
        assert mode(folder) == 0o1777
