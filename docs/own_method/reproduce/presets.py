"""What a preset is here: what it is in LUCIR's package."""

from lucir.reproduce.presets import Setting, settings

__all__ = ["Setting", "settings"]
