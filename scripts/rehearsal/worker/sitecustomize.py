"""Runs first in each Python process of MiniStack: leaves a function's worker nothing but its artefact.

MiniStack's workers run in MiniStack's own environment. What the layer lacks would be found there, and go unseen.
"""

import importlib.util
import os
import sys
from pathlib import Path

# MiniStack itself has no layers; it needs all that is installed.
if layers := os.environ.get("_LAMBDA_LAYERS_DIRS", ""):
    here = str(Path(__file__).parent)
    sys.path[:] = [path for path in sys.path if path != here and "site-packages" not in Path(path).parts]
    # Of the functions only the one that fetches images has this setting. Its image services are on this machine.
    if "ADDITIONAL_IMAGE_HOSTS" in os.environ:
        # As the worker has it in a moment: the layer first.
        sys.path[:0] = [str(Path(layer) / "python") for layer in layers.split(os.pathsep)]
        spec = importlib.util.spec_from_file_location("sandbox", os.environ["CATCHLIGHT_SANDBOX"])
        assert spec is not None
        assert spec.loader is not None
        sandbox = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sandbox)
        sandbox.install_local_url_policy(sandbox.parse_image_hosts(os.environ[sandbox.IMAGE_HOSTS_VARIABLE]))
