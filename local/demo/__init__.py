"""Implements `python -m local demo`: runs tasks through the whole local stack and checks each stored image's bytes."""

from local.demo.run import main

__all__ = ["main"]
