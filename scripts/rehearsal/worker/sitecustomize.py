"""Restricts MiniStack's workers to their function and its layer; Python imports this module first in each process.

The workers run in MiniStack's own virtual environment. Without the restriction, a function could import packages from
it that the layer lacks.
"""

import importlib.util
import os
import sys
from pathlib import Path

# MiniStack's own process has no layers and needs all installed packages.
if layers := os.environ.get("_LAMBDA_LAYERS_DIRS", ""):
    here = str(Path(__file__).parent)
    sys.path[:] = [path for path in sys.path if path != here and "site-packages" not in Path(path).parts]
    # Only the functions that fetch images or send webhooks have these variables. In the rehearsal, the image host and
    # the webhook receiver are on this machine.
    if {"ADDITIONAL_IMAGE_HOSTS", "WEBHOOK_URL"} & os.environ.keys():
        # The worker adds the layer to the path only later, and the sandbox module imports from it.
        sys.path[:0] = [str(Path(layer) / "python") for layer in layers.split(os.pathsep)]
        repository = Path(__file__).parents[3]
        spec = importlib.util.spec_from_file_location("sandbox", repository / "local" / "lambda_" / "sandbox.py")
        assert spec is not None
        assert spec.loader is not None
        sandbox = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sandbox)
        sandbox.install_local_url_policy(sandbox.parse_image_hosts(os.environ[sandbox.IMAGE_HOSTS_VARIABLE]))
