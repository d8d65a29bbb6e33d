"""TODO."""

SCHEMA_VERSION = 1


CELL_STATES = ("planned", "running", "done", "failed", "stale")
