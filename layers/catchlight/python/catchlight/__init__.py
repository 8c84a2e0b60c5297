"""Image generation tasks: what providers say of them, the table they live in, the images they end in."""

import gc

# What a cold start loads stays loaded. Looking for garbage in it, as Python does after every 2,000 new objects, takes a
# twentieth of the start's time and finds none.
gc.set_threshold(50_000)
