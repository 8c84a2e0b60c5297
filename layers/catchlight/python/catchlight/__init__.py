"""Receives, polls, stores and archives the results of image generation tasks."""

# The version of the whole repository. pyproject.toml reads it from here.
__version__ = "0.2.0"
