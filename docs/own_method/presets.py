"""What a preset is here: what it is in LUCIR's package."""

from lucir.presets import Setting, settings

__all__ = ["Setting", "settings"]
