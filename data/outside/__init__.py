"""Clips from outside: a table of files and prompts, files opened with care, pictures brought to one form.

Whatever lies in a folder that somebody brings is read as data: its content decides what it is, and before
anything large is decoded its header says what it would cost.
"""

from data.outside.convert import Converted, Facts, Refused, convert
from data.outside.files import Source, opened, read_source
from data.outside.settings import ConversionSettings
from data.outside.table import Entry, Table, read_table

__all__ = [
    "ConversionSettings",
    "Converted",
    "Entry",
    "Facts",
    "Refused",
    "Source",
    "Table",
    "convert",
    "opened",
    "read_source",
    "read_table",
]
