"""What a preset is here: what it is in LUCIR's package. No torch."""

from lucir.presets import Setting, settings

__all__ = ["Setting", "settings"]
