"""Only one stack at a time can own a state folder."""

import json
import os
import re
from pathlib import Path

import pytest

from catchlight.client.local_state import is_locked
from local import LocalStackError
from local.state_dir import owned, published

INFO = {"api_url": "http://127.0.0.1:3000", "aws_endpoint_url": "http://127.0.0.1:4000"}


def test_a_state_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    state = tmp_path / "new" / "state"
    assert is_locked(state) is None
    with owned(state):
        assert is_locked(state)
        with pytest.raises(LocalStackError, match=f"process {os.getpid()}, which is still starting"), owned(state):
            pass
        with published(state, INFO):
            addresses = re.escape("API http://127.0.0.1:3000, AWS endpoint http://127.0.0.1:4000")
            with pytest.raises(LocalStackError, match=addresses), owned(state):
                pass
            assert json.loads((state / "stack.json").read_text()) == INFO
        assert not (state / "stack.json").exists()
        with owned(tmp_path / "other"):
            assert is_locked(tmp_path / "other")
    assert is_locked(state) is False
    with owned(state):
        assert (state / "stack.lock").read_text() == f"{os.getpid()}\n"


def test_the_next_owner_removes_files_of_a_killed_stack(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{")
    (tmp_path / "stack.lock").write_text("123456789\n")
    (tmp_path / "lambda-runtime-x" / "awslambdaric").mkdir(parents=True)
    (tmp_path / "objects-x").mkdir()
    (tmp_path / "objects-x" / "content").write_bytes(b"an image")
    (tmp_path / "logs").mkdir()

    with owned(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "stack.lock"]
        assert not (tmp_path / "stack.json").exists()
        assert (tmp_path / "stack.lock").read_text() == f"{os.getpid()}\n"


def test_only_the_stack_that_wrote_the_addresses_removes_them(tmp_path: Path) -> None:
    path = tmp_path / "stack.json"
    with published(tmp_path, INFO):
        path.unlink()
    assert not path.exists()

    with published(tmp_path, INFO):
        path.write_text("another stack's")
    assert path.read_text() == "another stack's"


def test_an_unusable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalStackError, match=r"cannot be used: .* Choose another with --state-dir"):
        owned(tmp_path / "file").__enter__()
    (tmp_path / "stack.lock").mkdir()
    with pytest.raises(LocalStackError, match="cannot be used: Is a directory"), owned(tmp_path):
        pass
