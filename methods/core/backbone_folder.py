"""Where a local backbone is. Imports nothing heavy, so that plans can ask."""

from pathlib import Path


def resolve_backbone_folder(backbone_name: str) -> Path:
    """Folder of a local backbone: the bundled tiny model for `tiny`, otherwise this path, which may not exist."""
    return Path(__file__).parents[1] / "tiny" if backbone_name == "tiny" else Path(backbone_name).expanduser()
