"""Names that result files and folders use: the version of the schema and the states of cells."""

from typing import NamedTuple

SCHEMA_VERSION = 1
CELL_STATES = ("planned", "running", "done", "failed", "stale")


class CellStatus(NamedTuple):
    """State of a cell in a results folder (one of CELL_STATES), and the reason for it, empty where there is none."""

    state: str
    reason: str
