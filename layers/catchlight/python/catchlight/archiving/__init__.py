"""Copies the images of succeeded tasks into the bucket."""
