"""vidloop: a text-to-video model that rehearses."""

__version__ = "0.2.0"
