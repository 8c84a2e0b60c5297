"""The gallery: a page that shows a stack's tasks and images, served on this machine only."""

from catchlight_cli.gallery.server import GalleryServer

__all__ = ["GalleryServer"]
