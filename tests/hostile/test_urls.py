"""Tests with hostile URLs, names and redirects that only public addresses are connected to, and valid URLs accepted.

The corpus is `urls.toml`. URL policy, fetcher, TLS and HTTP are the deployed code. Only DNS and the destination of
connections are replaced.
"""

import socket
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from time import sleep
from typing import Any, NamedTuple

import pytest

from catchlight import outbound_http
from catchlight.errors import ImageRejectedError, ImageUnavailableError
from catchlight.images import fetcher as fetcher_module
from catchlight.images.fetcher import ImageFetcher
from catchlight.providers import PROVIDERS
from tests.hostile.internet import Authority, Internet, listening, read_request
from tests.image_server import download_image, picture

PNG = picture()
GOOD_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(PNG), PNG)
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
    """Returns the host of a valid URL."""
    authority = url.partition("//")[2]
    for end in "/?#:":
        authority = authority.partition(end)[0]
    return authority.lower()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def internet(authority: Authority) -> Iterator[Internet]:
    names = sorted({host_of(case.url) for case in GOOD} | {"images.example", "cdn.example"})
    with pytest.MonkeyPatch.context() as patch, Internet().running(authority.server(*names), patch) as running:
        yield running


@pytest.fixture(scope="module")
def fetcher(authority: Authority) -> ImageFetcher:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbound_http, "tls_context", lambda: authority.client())
        return ImageFetcher()


@pytest.fixture(autouse=True)
def _reset(internet: Internet) -> None:
    internet.reset()
    internet.response = GOOD_RESPONSE


def test_there_are_many_urls_without_duplicates() -> None:
    assert len(CASES) >= 300
    assert len(GOOD) >= 60
    assert len({(case.url, case.allowed) for case in CASES}) == len(CASES)
    known = {pattern.removeprefix("*.") for provider in PROVIDERS.values() for pattern in provider.image_hosts}
    assert all(any(host_of(case.url).endswith(host) for case in GOOD) for host in known)


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.url)
def test_allowed_urls_are_requested_from_the_validated_addresses(
    case: Case, internet: Internet, fetcher: ImageFetcher
) -> None:
    host = host_of(case.url)
    internet.dns[host] = [case.addresses]

    assert download_image(fetcher, case.url, case.allowed).content == PNG

    assert internet.resolutions == [host]
    assert internet.connections == [(case.addresses[0], 443)]
    # The URL is sent unchanged, because signatures cover every character.
    target = case.url.partition("//")[2][len(host) :].removeprefix(":443").removeprefix(":").partition("#")[0]
    head = internet.requests[0].decode().split("\r\n")
    assert head[0] == f"GET {target if target.startswith('/') else '/' + target} HTTP/1.1"
    assert f"Host: {host}" in head


@pytest.mark.parametrize("case", BAD, ids=lambda case: f"{case.url!a}")
def test_rejected_urls_are_not_connected_to(case: Case, internet: Internet, fetcher: ImageFetcher) -> None:
    by_address = case.refused == "has an address that is not public"
    if by_address:
        internet.dns[host_of(case.url)] = [case.addresses]

    # A later DNS answer may have only public addresses, so such a name is retried.
    error = ImageUnavailableError if by_address else ImageRejectedError
    with pytest.raises(error, match=case.refused):
        download_image(fetcher, case.url, case.allowed)

    assert internet.connections == []
    assert internet.resolutions == ([host_of(case.url)] if by_address else [])


# ------------------------------------------------------------------------------------------------ rebinding


def test_a_name_is_resolved_once_per_fetch(internet: Internet, fetcher: ImageFetcher) -> None:
    internet.dns["images.example"] = [["1.1.1.1"], ["127.0.0.1"]]

    download_image(fetcher, "https://images.example/a.png", ["*"])

    assert internet.resolutions == ["images.example"]
    assert internet.connections == [("1.1.1.1", 443)]


def test_a_name_that_changes_to_an_internal_address_is_rejected(internet: Internet, fetcher: ImageFetcher) -> None:
    internet.dns["images.example"] = [["1.1.1.1"], ["1.1.1.1"], ["169.254.169.254"]]

    for _ in range(2):
        download_image(fetcher, "https://images.example/a.png", ["*"])
    with pytest.raises(ImageUnavailableError, match="not public"):
        download_image(fetcher, "https://images.example/a.png", ["*"])

    assert internet.connections == [("1.1.1.1", 443)] * 2


def test_a_failed_connection_does_not_resolve_the_name_again(
    internet: Internet, fetcher: ImageFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    internet.dns["images.example"] = [["1.1.1.1", "8.8.8.8"], ["127.0.0.1"]]
    tried = []

    def refuse(address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(ImageUnavailableError, match="the server cannot be reached"):
        download_image(fetcher, "https://images.example/a.png", ["*"])

    assert tried == [("1.1.1.1", 443), ("8.8.8.8", 443)]
    assert internet.resolutions == ["images.example"]


def test_a_name_that_does_not_resolve_is_retried(internet: Internet, fetcher: ImageFetcher) -> None:
    with pytest.raises(ImageUnavailableError, match=r"images\.example cannot be resolved"):
        download_image(fetcher, "https://images.example/a.png", ["*"])


# ------------------------------------------------------------------------------------------------ redirects

REDIRECTING = "https://images.example/p/a.png?sig=1"


def redirect(location: str | bytes, status: int = 302) -> bytes:
    encoded = location if isinstance(location, bytes) else location.encode()
    return b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, encoded)


def chain(*urls: str) -> dict[str, bytes]:
    return {url: redirect(following) for url, following in pairwise(urls)}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://cdn.example/b.png", "https://cdn.example/b.png"),
        ("https://CDN.example:443/b.png#c", "https://cdn.example/b.png"),
        ("https://cdn.example", "https://cdn.example/"),
        ("//cdn.example/b.png", "https://cdn.example/b.png"),
        ("/b.png?sig=a%2Fb%20c", "https://images.example/b.png?sig=a%2Fb%20c"),
        ("b.png", "https://images.example/p/b.png"),
        ("../../b.png", "https://images.example/b.png"),
        ("./q/../b.png", "https://images.example/p/b.png"),
        ("?sig=2", "https://images.example/p/a.png?sig=2"),
        ("https:b.png", "https://images.example/p/b.png"),
        ("/b c.png?d=e f", "https://images.example/b%20c.png?d=e%20f"),
        ("/\u56fe.png", "https://images.example/%E5%9B%BE.png"),
        (b"/b\xfc.png", "https://images.example/b%FC.png"),
        ("/@127.0.0.1/b.png", "https://images.example/@127.0.0.1/b.png"),
    ],
)
def test_redirects_are_followed_as_browsers_follow_them(
    internet: Internet, fetcher: ImageFetcher, status: int, location: str | bytes, target: str
) -> None:
    names = ["images.example", host_of(target)]
    internet.dns = {"images.example": [["1.1.1.1"], ["1.1.1.1"]], "cdn.example": [["8.8.8.8"]]}
    internet.response = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    internet.responses = {REDIRECTING: redirect(location, status), target: GOOD_RESPONSE}

    fetched = download_image(fetcher, REDIRECTING, ["images.example"])

    assert (fetched.content, fetched.source_host) == (PNG, names[1])
    # Each hop is resolved and connected to separately.
    assert internet.resolutions == names
    assert len(internet.connections) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next",
        "http://169.254.169.254/latest/meta-data/",
        "http://cdn.example/a.png",
        "http:b.png",
        "https://cdn.example:8443/a.png",
        "https://cdn.example:80/a.png",
        "https://169.254.169.254/",
        "//169.254.169.254/",
        "https://2852039166/",
        "https://[::1]/",
        "https://[fd00:ec2::254]/",
        "https://[::1",
        "https://localhost/",
        "https://cdn.example./a.png",
        "https://user@cdn.example/a.png",
        "https://images.example@127.0.0.1/",
        "//user:password@cdn.example/",
        "https://b\u00fccher.example/a.png",
        "https://cdn\u3002example/a.png",
        "https://cdn.example%2f.evil.example/a.png",
        "https://cdn.example /a.png",
        "///cdn.example/a.png",
        "////cdn.example/a.png",
        "https:///cdn.example/a.png",
        "\\\\127.0.0.1\\a",
        "/\\127.0.0.1/a",
        "\\b.png",
        "https:\\\\127.0.0.1/a",
        "https://cdn.example\\@127.0.0.1/",
        "file:///etc/passwd",
        "data:image/png;base64,iVBORw0KGgo=",
        "javascript:alert(1)",
        "gopher://127.0.0.1:6379/_INFO",
        "https://images.example/p/a.png?sig=1",
        "https://images.example:443/p/a.png?sig=1#again",
        "?sig=1",
        "#fragment",
        "",
        "/" + "a" * 9000,
    ],
)
def test_invalid_redirects_are_rejected(internet: Internet, fetcher: ImageFetcher, status: int, location: str) -> None:
    internet.dns["images.example"] = [["1.1.1.1"]] * 5
    internet.response = redirect(location, status)

    with pytest.raises(ImageRejectedError, match="redirects"):
        download_image(fetcher, REDIRECTING, ["*"])

    # With the port it counts as another URL: the circular redirect is recognised after a second request.
    requests = 2 if location.startswith("https://images.example:443") else 1
    assert internet.resolutions == ["images.example"] * requests
    assert internet.connections == [("1.1.1.1", 443)] * requests


def test_a_redirect_without_location_is_rejected(internet: Internet, fetcher: ImageFetcher) -> None:
    internet.dns["images.example"] = [["1.1.1.1"]]
    internet.response = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"

    with pytest.raises(ImageRejectedError, match="redirects without a URL"):
        download_image(fetcher, REDIRECTING, ["*"])


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["8.8.8.8", "169.254.169.254"], ["::ffff:10.0.0.1"]])
def test_a_redirect_to_an_internal_address_is_not_connected_to(
    internet: Internet, fetcher: ImageFetcher, addresses: list[str]
) -> None:
    internet.dns = {"images.example": [["1.1.1.1"]], "cdn.example": [addresses]}
    internet.response = redirect("https://cdn.example/a.png")

    with pytest.raises(ImageUnavailableError, match=r"cdn\.example has an address that is not public"):
        download_image(fetcher, REDIRECTING, ["*"])

    assert internet.connections == [("1.1.1.1", 443)]


def test_a_host_that_changes_to_an_internal_address_between_hops_is_not_connected_to(
    internet: Internet, fetcher: ImageFetcher
) -> None:
    internet.dns["images.example"] = [["1.1.1.1"], ["127.0.0.1"]]
    internet.response = redirect("/b.png")

    with pytest.raises(ImageUnavailableError, match="not public"):
        download_image(fetcher, REDIRECTING, ["*"])

    assert internet.connections == [("1.1.1.1", 443)]


def test_only_an_allowed_host_may_redirect(internet: Internet, fetcher: ImageFetcher) -> None:
    internet.dns["cdn.example"] = [["8.8.8.8"]]
    internet.response = redirect("https://images.example/a.png")

    with pytest.raises(ImageRejectedError, match=r"cdn\.example is not a host"):
        download_image(fetcher, "https://cdn.example/a.png", ["images.example"])

    assert (internet.resolutions, internet.connections) == ([], [])


def test_at_most_three_redirects_are_followed(internet: Internet, fetcher: ImageFetcher) -> None:
    urls = [f"https://images.example/{number}.png" for number in range(6)]
    internet.responses = chain(*urls[:4])
    internet.dns["images.example"] = [["1.1.1.1"]] * 10

    assert download_image(fetcher, urls[0], ["*"]).content == PNG
    assert len(internet.requests) == 4

    internet.responses = chain(*urls[:5])
    with pytest.raises(ImageRejectedError, match="redirects more than 3 times"):
        download_image(fetcher, urls[0], ["*"])
    assert len(internet.requests) == 8


@pytest.mark.parametrize("length", [1, 2, 3])
def test_circular_redirects_are_rejected(internet: Internet, fetcher: ImageFetcher, length: int) -> None:
    urls = [f"https://images.example/{number}.png" for number in range(length)]
    internet.responses = chain(*urls, urls[0])
    internet.dns["images.example"] = [["1.1.1.1"]] * 10

    with pytest.raises(ImageRejectedError, match="redirects in a circle"):
        download_image(fetcher, urls[0], ["*"])
    assert len(internet.requests) == length


def test_a_hop_does_not_receive_cookies_or_the_previous_url(internet: Internet, fetcher: ImageFetcher) -> None:
    internet.dns = {"images.example": [["1.1.1.1"]], "cdn.example": [["8.8.8.8"]]}
    response_with_cookie = redirect("https://cdn.example/b.png").replace(
        b"Moved\r\n", b"Moved\r\nSet-Cookie: id=1; Domain=example\r\n"
    )
    internet.responses = {REDIRECTING: response_with_cookie}

    download_image(fetcher, REDIRECTING, ["*"])

    sent = internet.requests[1].lower()
    assert not [name for name in (b"cookie", b"referer", b"authorization", b"sig=1") if name in sent]


def test_the_deadline_covers_all_hops(
    internet: Internet, fetcher: ImageFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher_module, "FETCH_DEADLINE_SECONDS", 2.0)
    urls = [f"https://images.example/{number}.png" for number in range(4)]
    internet.dns["images.example"] = [["1.1.1.1"]] * 4
    following = iter(urls[1:])

    def respond_late(connection: socket.socket) -> None:
        read_request(connection)
        sleep(0.8)
        connection.sendall(redirect(next(following)))

    with listening(respond_late, internet.tls) as port:
        monkeypatch.setattr(internet, "port", port)
        with pytest.raises(ImageUnavailableError, match="did not arrive within 2 s"):
            download_image(fetcher, urls[0], ["*"])


# ------------------------------------------------------------------------------------------------ environment variables


def test_proxy_variables_and_netrc_are_ignored(
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

    download_image(ImageFetcher(), "https://images.example/a.png", ["*"])

    assert internet.connections == [("1.1.1.1", 443)]
    assert b"authorization" not in internet.requests[0].lower()


def test_cookies_are_not_kept_between_downloads(internet: Internet, fetcher: ImageFetcher) -> None:
    internet.response = GOOD_RESPONSE.replace(b"OK\r\n", b"OK\r\nSet-Cookie: id=1; Domain=example; Path=/\r\n")
    internet.dns["images.example"] = [["1.1.1.1"], ["1.1.1.1"]]

    for _ in range(2):
        download_image(fetcher, "https://images.example/a.png", ["*"])

    assert b"cookie" not in internet.requests[1].lower()


# ------------------------------------------------------------------------------------------------ certificates


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_environment_variables_cannot_add_certificate_authorities(
    authority: Authority, internet: Internet, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(authority.path.parent if variable.endswith("DIR") else authority.path))
    monkeypatch.setattr(outbound_http, "tls_context", outbound_http.tls_context.__wrapped__)  # without its cache
    internet.dns["images.example"] = [["1.1.1.1"]]

    with pytest.raises(ImageUnavailableError, match="certificate is not valid"):
        download_image(ImageFetcher(), "https://images.example/a.png", ["*"])

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
        pytest.param(["images.example"], 1, False, False, id="of an unknown authority"),
    ],
)
def test_the_certificate_must_be_valid_for_the_host_name(
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
    issuer = authority if known else Authority(tmp_path)
    internet.dns["images.example"] = [["1.1.1.1"]]
    with listening(internet.behave, issuer.server(*names, valid_for=timedelta(days=days))) as port:
        monkeypatch.setattr(internet, "port", port)
        if accepted:
            download_image(fetcher, "https://images.example/a.png", ["*"])
        else:
            with pytest.raises(ImageUnavailableError, match="certificate is not valid"):
                download_image(fetcher, "https://images.example/a.png", ["*"])

    assert len(internet.requests) == accepted
