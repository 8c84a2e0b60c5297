"""Provides copies of the artefact for this machine that a test may damage."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local import REPOSITORY
from local.artefact import Artefact
from scripts.smoke.contents import Build, target_here

HERE = target_here()


class Copy(Build):
    """A copy whose files are hard links to the artefact's: files are replaced, never written to.

    Paths may contain a `*` in place of a version.
    """

    def remove(self, path: str) -> None:
        """Removes a file or a folder."""
        found = self._find(path)
        shutil.rmtree(found) if found.is_dir() else found.unlink()

    def write(self, path: str, content: bytes) -> None:
        """Writes a file, replacing an existing one."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(content)

    def change(self, path: str, change: Callable[[bytes], bytes]) -> None:
        """Replaces a file's content by a function of it."""
        found = self._find(path)
        self.write(str(found.relative_to(self.folder)), change(found.read_bytes()))

    def change_data(self, path: str, change: Callable[[Any], Any]) -> None:
        """Changes a file of botocore's data; `change` modifies the parsed document in place."""

        def changed(content: bytes) -> bytes:
            parsed = json.loads(content)
            change(parsed)
            return json.dumps(parsed, separators=(",", ":")).encode()

        self.change(f"CatchlightLayer/python/botocore/data/{path}", changed)

    def _find(self, path: str) -> Path:
        (found,) = self.folder.glob(path)
        return found


def copy_of(artefact: Artefact, folder: Path) -> Copy:
    """Copies the artefact to a folder."""
    shutil.copytree(artefact.folder, folder, copy_function=_link_or_copy)
    return Copy(folder, REPOSITORY, HERE)


def remove_bundles(copy: Copy) -> None:
    """Removes both CA bundles of the layer."""
    for package in ("certifi", "botocore"):
        copy.remove(f"CatchlightLayer/python/{package}/cacert.pem")


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
