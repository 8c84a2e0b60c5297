"""AWS clients, secrets, and DynamoDB expressions."""

import gc

# Every function imports this package first; `catchlight.client` does not import it. Objects that are created during a
# cold start stay in memory. By default, Python runs a garbage collection after every 2,000 new objects; this takes a
# twentieth of the cold start's time and frees nothing.
gc.set_threshold(50_000)
