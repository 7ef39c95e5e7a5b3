"""The miniature: a 2-D physics world whose oracle knows the truth, and tiny models pretrained on it.

A plug-in of vidloop. Its physics reward, prompt splits and recipe come in by entry points, as those of any
other package would; nothing in the library imports it.
"""

__all__ = ["physics", "train", "world"]
