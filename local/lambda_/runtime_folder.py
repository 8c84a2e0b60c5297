"""Fills the folder that replaces Lambda's /var/runtime: it has AWS's runtime interface client, and nothing else.

Functions of the artefact import the client from there. They must not import from the environment in which the client is
installed, because it also has packages that Lambda does not have.
"""

import shutil
from importlib import metadata
from pathlib import Path

from local import LocalStackError
from local.lambda_ import python_runtime_client

# The client and its dependencies.
DISTRIBUTIONS = ("awslambdaric", "simplejson", "snapshot-restore-py")


def make_runtime_folder(folder: Path) -> None:
    """Fills an empty folder with the runtime interface client of this environment.

    Raises:
        LocalStackError: the client is not installed.
    """
    for name in DISTRIBUTIONS:
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError as exc:
            raise LocalStackError(f"{name} is not installed: run `make setup` to install it.") from exc
        for file in distribution.files or ():
            source, target = Path(str(distribution.locate_file(file))), folder / file
            # Console scripts, which are outside the packages' folder, are not needed. Bytecode files may have been
            # deleted.
            if ".." not in file.parts and source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                # Keeps the timestamps: bytecode is valid only if its source has the recorded modification time.
                shutil.copy2(source, target)
    # The native module is compiled on Linux only.
    if not any(folder.glob("runtime_client.*")):
        shutil.copy(python_runtime_client.__file__, folder / "runtime_client.py")
