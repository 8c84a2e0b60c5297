"""The gallery: a page that shows a stack's tasks and images, served on this machine only."""

from catchlight.gallery.server import GalleryServer

__all__ = ["GalleryServer"]
