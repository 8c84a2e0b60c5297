"""`python -m local demo`: the whole pipeline in front of your eyes, checked down to the bytes."""

from local.demo.run import main

__all__ = ["main"]
