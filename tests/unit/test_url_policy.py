"""UrlPolicy: which URLs may be downloaded, and to which addresses connections may be made."""

import socket
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catchlight.errors import ImageRejectedError, ImageUnavailableError
from catchlight.images.url_policy import UrlPolicy, is_expected_host, is_public_address

url_policy = UrlPolicy()

# ------------------------------------------------------------------------------------------------ URLs


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://host.example/a.png", "host.example"),
        ("https://HOST.Example/a.png", "host.example"),
        ("HTTPS://host.example/a.png", "host.example"),
        ("https://host.example:443/a.png", "host.example"),
        ("https://host.example", "host.example"),
        ("https://a-b_c.d0.example/p%20q/a.png?se=2026-01-06T00%3A00%3A00Z&sig=a%2Fb%3D#x", "a-b_c.d0.example"),
        ("https://xn--bcher-kva.example/a.png", "xn--bcher-kva.example"),
        ("https://1e100.net/a.png", "1e100.net"),
        ("https://host.example/@user/a.png", "host.example"),
    ],
)
def test_https_urls_of_host_names_are_accepted(url: str, host: str) -> None:
    assert url_policy.check_url(url, ["*"]) == host


@pytest.mark.parametrize(
    "url",
    [
        "http://host.example/a.png",
        "ftp://host.example/a.png",
        "file:///etc/passwd",
        "gopher://host.example/",
        "data:image/png;base64,AAAA",
        "//host.example/a.png",
        "host.example/a.png",
        "",
        "https:",
        "https://",
        "https:///a.png",
        "https://:443/a.png",
        # Ports
        "https://host.example:80/",
        "https://host.example:8443/",
        "https://host.example:0/",
        "https://host.example:65536/",
        "https://host.example:x/",
        "https://host.example:-443/",
        # User names
        "https://user@host.example/",
        "https://user:password@host.example/",
        "https://@host.example/",
        "https://host.example@evil.example/",
        "https://host.example%40evil.example/",
        # Addresses, in every spelling that some resolver accepts
        "https://127.0.0.1/",
        "https://8.8.8.8/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://[::1]/",
        "https://[2606:4700::1111]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://[host.example]/",
        # Names outside the public internet
        "https://localhost/",
        "https://metadata/",
        "https://host.example./",
        "https://.host.example/",
        "https://host..example/",
        "https://-host.example/",
        "https://host-.example/",
        "https://host.1/",
        "https://host%2eexample/",
        "https://" + "a" * 64 + ".example/",
        "https://" + "a." * 125 + "example/",
        "https://*.example/",
        # Characters that parsers interpret differently
        "https://host.example\\@evil.example/",
        "https://host.example\\.evil.example/",
        "https://host.example /",
        " https://host.example/",
        "https://host.example/\n",
        "https://host.example/\r\nHost: evil.example",
        "https://host.\texample/",
        "https://host.example/\x00",
        "https://host.example/a b",
        'https://host.example/"',
        "https://host.example/<a>",
        "https://host.example/{a}",
        "https://bücher.example/",
        "https://host。example/",
        "https://ⓗost.example/",
        "https://host.example/ä",
        "https://host.example/\ud800",
        "https://host.example\u2044.evil.example/",
    ],
)
def test_every_other_url_is_rejected(url: str) -> None:
    with pytest.raises(ImageRejectedError) as rejected:
        url_policy.check_url(url, ["*"])

    str(rejected.value).encode()


@given(st.text(max_size=60) | st.text("htps:/@[]%.0x127#?\\", max_size=40).map("https://".__add__))
def test_any_text_is_accepted_or_rejected(url: str) -> None:
    try:
        host = url_policy.check_url(url, ["*"])
    except ImageRejectedError:
        return
    assert url.lower().startswith(f"https://{host}")


@pytest.mark.parametrize(
    ("host", "allowed", "expected"),
    [
        ("images.example", ["images.example"], True),
        ("images.example", ["other.example", "images.example"], True),
        ("images.example", ["*"], True),
        ("a.images.example", ["*.images.example"], True),
        ("a.b.images.example", ["*.images.example"], True),
        ("images.example", ["*.images.example"], False),
        ("evilimages.example", ["*.images.example"], False),
        ("evilimages.example", ["images.example"], False),
        ("images.example.evil.example", ["images.example", "*.images.example"], False),
        ("a.images.example", ["images.example"], False),
        ("images.example", [], False),
        ("images.example", [""], False),
        ("images.example", ["*example"], False),
        ("images.example", ["images.*"], False),
    ],
)
def test_only_expected_hosts_are_accepted(host: str, allowed: list[str], expected: bool) -> None:
    assert is_expected_host(host, allowed) is expected

    if expected:
        assert url_policy.check_url(f"https://{host}/a.png", allowed) == host
    else:
        with pytest.raises(ImageRejectedError, match=rf"^{host} is not a host .* AdditionalImageHosts can add it"):
            url_policy.check_url(f"https://{host}/a.png", allowed)


# ------------------------------------------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2a00:1450:4001:81b::200e",
        "2001:4860:4860::8888",
        "2600:1f18::1",
    ],
)
def test_public_addresses(address: str) -> None:
    assert is_public_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.0.1",
        "169.254.169.254",  # instance metadata
        "169.254.170.2",  # container credentials
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.9",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:20::1",
        "2001:1ff:ffff::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",  # instance metadata
        "fec0::1",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700:4700::1111%eth0",
        "ff02::1",
        "",
        "host.example",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "8.8.8.8 ",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public_address(address)


@given(st.ip_addresses())
def test_addresses_that_ipaddress_reports_as_special_are_not_public(address: object) -> None:
    parsed = ip_address(str(address))

    if parsed.is_private or parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_reserved:
        assert not is_public_address(str(parsed))


# ------------------------------------------------------------------------------------------------ names


def answer_with(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_UNSPEC, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_a_name_is_resolved_to_its_public_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, "2606:4700::1111", "8.8.8.8", "8.8.8.8")

    assert url_policy.resolve("host.example", 443) == ["2606:4700::1111", "8.8.8.8"]


@pytest.mark.parametrize(
    "addresses", [("127.0.0.1",), ("8.8.8.8", "169.254.169.254"), ("::1", "8.8.8.8"), ("8.8.8.8", "fe80::1%eth0")]
)
def test_a_name_with_one_address_that_is_not_public_is_a_temporary_error(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    answer_with(monkeypatch, *addresses)

    with pytest.raises(ImageUnavailableError, match=r"host\.example has an address that is not public"):
        url_policy.resolve("host.example", 443)


def test_a_name_that_is_not_found_is_a_temporary_error(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch)

    with pytest.raises(ImageUnavailableError, match=r"host\.example cannot be resolved"):
        url_policy.resolve("host.example", 443)


def host_of(length: int) -> str:
    """Returns a host name of this length, with labels of at most 63 characters."""
    return ".".join(["a" * 63] * 3 + ["a" * (length - 3 * 64)])


@pytest.mark.parametrize(
    ("host", "is_accepted"),
    [
        (host_of(253), True),
        (host_of(254), False),
        ("a" * 63 + ".example", True),
        ("a" * 64 + ".example", False),
        ("h." + "a" * 63, True),
        ("h." + "a" * 64, False),
        ("h.e", True),
        ("h", False),
    ],
)
def test_host_names_have_the_length_limits_of_dns(host: str, is_accepted: bool) -> None:
    if is_accepted:
        assert UrlPolicy().check_url(f"https://{host}/", ["*"]) == host
    else:
        with pytest.raises(ImageRejectedError, match="not a public host name"):
            UrlPolicy().check_url(f"https://{host}/", ["*"])
