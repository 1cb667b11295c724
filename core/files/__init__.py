"""Files that are written: whole or not at all, under no name that a stranger can have prepared, and inside their folder."""

from . import reading
from .links import refuse_links
from .names import COMPONENT, as_component, inside, is_component
from .replacing import is_temporary, replacing, temporary_name

__all__ = [
    "COMPONENT",
    "as_component",
    "inside",
    "is_component",
    "is_temporary",
    "reading",
    "refuse_links",
    "replacing",
    "temporary_name",
]
