"""The guard in conftest.py: tests cannot connect to other machines."""

import socket

import pytest


@pytest.mark.parametrize("address", ["192.0.2.1", "0.0.0.0"])
def test_connections_to_other_machines_fail(address: str, network_attempts: list[str]) -> None:
    with socket.socket() as client, pytest.raises(pytest.fail.Exception, match="tried to reach another machine"):
        client.connect((address, 80))

    assert network_attempts == [f"socket.connect {address}"]
    network_attempts.clear()


def test_names_are_not_resolved(network_attempts: list[str]) -> None:
    with pytest.raises(pytest.fail.Exception, match="tried to reach another machine"):
        socket.getaddrinfo("example.com", 443)

    assert network_attempts == ["socket.getaddrinfo 'example.com'"]
    network_attempts.clear()


def test_connections_to_loopback_are_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.sendall(b"x")
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1) == b"x"
