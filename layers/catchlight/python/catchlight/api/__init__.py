"""The tasks API: what callers may ask of tasks, what they are answered, and requests for images, sent once."""
