"""The Jinja environment of both cards: what differs is how a text is made inert."""

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.card.claims import number, yes_no
from schemas.uri import redact


def card_templates(inert: Callable[[str], str]) -> Environment:
    """Templates in which every text that is not ``Markup`` goes through ``inert`` before it is shown."""

    def finalize(value: Any) -> Any:
        return value if isinstance(value, Markup) or not isinstance(value, str) else inert(value)

    environment = Environment(
        loader=PackageLoader("pipeline.card"),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, yes_no=yes_no, redact=redact)
    return environment
