"""Serves the gallery, a web page with a stack's tasks and images, to browsers on this machine only."""

from catchlight_cli.gallery.actions import TaskActions
from catchlight_cli.gallery.server import GalleryServer
from catchlight_cli.gallery.stack_reader import StackReader

__all__ = ["GalleryServer", "StackReader", "TaskActions"]
