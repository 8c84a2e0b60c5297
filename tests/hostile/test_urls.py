"""Hostile URLs, names and redirects: nothing that is not public is ever connected to, nothing good is refused.

The corpus is `urls.toml`. URL policy, fetcher, TLS and HTTP are the deployed ones; only DNS and the last hop
of a connection are faked.
"""

import socket
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from catchlight import outbound_http
from catchlight.errors import ImageRejectedError, ImageUnavailableError
from catchlight.images.fetcher import ImageFetcher
from catchlight.providers import PROVIDERS
from tests.hostile.internet import Authority, Internet, listening
from tests.image_server import picture, take

PNG = picture()
GOOD_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(PNG), PNG)
PUBLIC = ["1.1.1.1"]


class Case(NamedTuple):
    """A row of the corpus."""

    url: str
    why: str
    addresses: list[str]
    allowed: tuple[str, ...]
    refused: str | None


def cases() -> list[Case]:
    groups = tomllib.loads(Path(__file__).with_name("urls.toml").read_text(encoding="utf-8"))["groups"]
    return [
        Case(url, group["why"], addresses, allowed_hosts(group.get("allowed", "*")), group.get("refused"))
        for group in groups
        for url, addresses in [
            *((url, PUBLIC) for url in group.get("urls", [])),
            *((f"https://{name}/a.png", addresses) for name, addresses in group.get("names", {}).items()),
        ]
    ]


def allowed_hosts(allowed: str | list[str]) -> tuple[str, ...]:
    if isinstance(allowed, str):
        return PROVIDERS[allowed].image_hosts if allowed in PROVIDERS else (allowed,)
    return tuple(allowed)


CASES = cases()
GOOD = [case for case in CASES if case.refused is None]
BAD = [case for case in CASES if case.refused is not None]


def host_of(url: str) -> str:
    """The host as a person would read it: good URLs are plain enough for that."""
    authority = url.partition("//")[2]
    for end in "/?#:":
        authority = authority.partition(end)[0]
    return authority.lower()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def internet(authority: Authority) -> Iterator[Internet]:
    names = sorted({host_of(case.url) for case in GOOD} | {"images.example"})
    with pytest.MonkeyPatch.context() as patch, Internet().running(authority.server(*names), patch) as running:
        yield running


@pytest.fixture(scope="module")
def fetcher(authority: Authority) -> ImageFetcher:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbound_http, "tls_context", lambda: authority.client())
        return ImageFetcher()


@pytest.fixture(autouse=True)
def _forgetful(internet: Internet) -> None:
    internet.forget()
    internet.answer = GOOD_ANSWER


def test_the_corpus_is_large_and_without_repetition() -> None:
    assert len(CASES) >= 300
    assert len(GOOD) >= 60
    assert len({(case.url, case.allowed) for case in CASES}) == len(CASES)
    known = {pattern.removeprefix("*.") for provider in PROVIDERS.values() for pattern in provider.image_hosts}
    assert all(any(host_of(case.url).endswith(host) for case in GOOD) for host in known)


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.url)
def test_good_urls_are_fetched_from_the_addresses_that_were_checked(
    case: Case, internet: Internet, fetcher: ImageFetcher
) -> None:
    host = host_of(case.url)
    internet.dns[host] = [case.addresses]

    assert take(fetcher, case.url, case.allowed).content == PNG

    assert internet.resolutions == [host]
    assert internet.connections == [(case.addresses[0], 443)]
    # Sent as it came: signatures cover every character.
    target = case.url.partition("//")[2][len(host) :].removeprefix(":443").removeprefix(":").partition("#")[0]
    head = internet.requests[0].decode().split("\r\n")
    assert head[0] == f"GET {target if target.startswith('/') else '/' + target} HTTP/1.1"
    assert f"Host: {host}" in head


@pytest.mark.parametrize("case", BAD, ids=lambda case: f"{case.url!a}")
def test_bad_urls_lead_nowhere(case: Case, internet: Internet, fetcher: ImageFetcher) -> None:
    by_address = case.refused == "has an address that is not public"
    if by_address:
        internet.dns[host_of(case.url)] = [case.addresses]

    with pytest.raises(ImageRejectedError, match=case.refused):
        take(fetcher, case.url, case.allowed)

    assert internet.connections == []
    assert internet.resolutions == ([host_of(case.url)] if by_address else [])


# ------------------------------------------------------------------------------------------------ rebinding


def test_a_name_is_resolved_once_per_fetch(internet: Internet, fetcher: ImageFetcher) -> None:
    internet.dns["images.example"] = [["1.1.1.1"], ["127.0.0.1"]]

    take(fetcher, "https://images.example/a.png", ["*"])

    assert internet.resolutions == ["images.example"]
    assert internet.connections == [("1.1.1.1", 443)]


def test_a_name_that_moved_inside_is_refused_however_often_it_was_good(
    internet: Internet, fetcher: ImageFetcher
) -> None:
    internet.dns["images.example"] = [["1.1.1.1"], ["1.1.1.1"], ["169.254.169.254"]]

    for _ in range(2):
        take(fetcher, "https://images.example/a.png", ["*"])
    with pytest.raises(ImageRejectedError, match="not public"):
        take(fetcher, "https://images.example/a.png", ["*"])

    assert internet.connections == [("1.1.1.1", 443)] * 2


def test_a_failed_connection_does_not_lead_to_another_resolution(
    internet: Internet, fetcher: ImageFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    internet.dns["images.example"] = [["1.1.1.1", "8.8.8.8"], ["127.0.0.1"]]
    tried = []

    def refuse(address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(ImageUnavailableError, match="no server answers"):
        take(fetcher, "https://images.example/a.png", ["*"])

    assert tried == [("1.1.1.1", 443), ("8.8.8.8", 443)]
    assert internet.resolutions == ["images.example"]


def test_a_name_that_does_not_resolve_may_do_so_next_time(internet: Internet, fetcher: ImageFetcher) -> None:
    with pytest.raises(ImageUnavailableError, match=r"images\.example cannot be resolved"):
        take(fetcher, "https://images.example/a.png", ["*"])


# ------------------------------------------------------------------------------------------------ redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next",
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/",
        "https://[::1]/",
        "https://[fd00:ec2::254]/",
        "https://localhost/",
        "https://evil.example/a.png",
        "https://images.example/a.png",
        "https://images.example/b.png",
        "//evil.example/a.png",
        "/b.png",
        "b.png",
        "",
        "file:///etc/passwd",
        "https://images.example@127.0.0.1/",
        "\\\\127.0.0.1\\a",
    ],
)
def test_redirects_lead_nowhere(internet: Internet, fetcher: ImageFetcher, status: int, location: str) -> None:
    internet.dns["images.example"] = [["1.1.1.1"]]
    internet.answer = f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()

    with pytest.raises(ImageRejectedError, match="redirects"):
        take(fetcher, "https://images.example/a.png", ["*"])

    assert internet.resolutions == ["images.example"]
    assert internet.connections == [("1.1.1.1", 443)]


# ------------------------------------------------------------------------------------------------ the environment


def test_the_environment_changes_nothing(
    authority: Authority, internet: Internet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine images.example login user password s3cret\n", encoding="utf-8")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "socks_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    monkeypatch.setattr(outbound_http, "tls_context", lambda: authority.client())
    internet.dns["images.example"] = [["1.1.1.1"]]

    take(ImageFetcher(), "https://images.example/a.png", ["*"])

    assert internet.connections == [("1.1.1.1", 443)]
    assert b"authorization" not in internet.requests[0].lower()


def test_no_cookie_goes_from_one_fetch_to_the_next(internet: Internet, fetcher: ImageFetcher) -> None:
    internet.answer = GOOD_ANSWER.replace(b"OK\r\n", b"OK\r\nSet-Cookie: id=1; Domain=example; Path=/\r\n")
    internet.dns["images.example"] = [["1.1.1.1"], ["1.1.1.1"]]

    for _ in range(2):
        take(fetcher, "https://images.example/a.png", ["*"])

    assert b"cookie" not in internet.requests[1].lower()


# ------------------------------------------------------------------------------------------------ certificates


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_environment_names_no_authority(
    authority: Authority, internet: Internet, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(authority.path.parent if variable.endswith("DIR") else authority.path))
    monkeypatch.setattr(outbound_http, "tls_context", outbound_http.tls_context.__wrapped__)  # not the cached one
    internet.dns["images.example"] = [["1.1.1.1"]]

    with pytest.raises(ImageUnavailableError, match="certificate is not valid"):
        take(ImageFetcher(), "https://images.example/a.png", ["*"])

    assert internet.requests == []


@pytest.mark.parametrize(
    ("names", "days", "known", "accepted"),
    [
        pytest.param(["images.example"], 1, True, True, id="good"),
        pytest.param(["other.example"], 1, True, False, id="of another name"),
        pytest.param(["example", "images.example.evil.example"], 1, True, False, id="of similar names"),
        pytest.param(["*.images.example", "*"], 1, True, False, id="of names below and of all"),
        pytest.param(["1.1.1.1"], 1, True, False, id="of the address"),
        pytest.param(["images.example"], -1, True, False, id="expired"),
        pytest.param(["images.example"], 1, False, False, id="of an authority that nobody knows"),
    ],
)
def test_a_certificate_must_be_of_the_name(
    authority: Authority,
    internet: Internet,
    fetcher: ImageFetcher,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    names: list[str],
    days: int,
    known: bool,
    accepted: bool,
) -> None:
    signer = authority if known else Authority(tmp_path)
    internet.dns["images.example"] = [["1.1.1.1"]]
    with listening(internet.behave, signer.server(*names, valid_for=timedelta(days=days))) as port:
        monkeypatch.setattr(internet, "port", port)
        if accepted:
            take(fetcher, "https://images.example/a.png", ["*"])
        else:
            with pytest.raises(ImageUnavailableError, match="certificate is not valid"):
                take(fetcher, "https://images.example/a.png", ["*"])

    assert len(internet.requests) == accepted
