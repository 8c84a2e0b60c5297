"""Image generation tasks: what providers say of them, the table they live in, the images they end in."""
