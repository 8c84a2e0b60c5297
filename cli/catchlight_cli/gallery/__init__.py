"""Serves the gallery, a web page with a stack's tasks and images, to browsers on this machine only."""

from catchlight_cli.gallery.actions import TaskActions
from catchlight_cli.gallery.server import GalleryServer

__all__ = ["GalleryServer", "TaskActions"]
