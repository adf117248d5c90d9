"""A model as the dataset card shows it: which exact file, under which terms, and where its figures come from."""

from typing import Literal

from schemas.base import Record

Device = Literal["cpu", "cuda"]  # where a network runs; never chosen by what a machine happens to have


class ModelCard(Record):
    """One model file.

    ``licence`` is an SPDX identifier where one exists. ``commercial_use`` is None where the terms are not
    known: readers must then assume no. ``domains`` are the ones it was measured on, ``measured`` the figure.
    """

    name: str
    file: str
    sha256: str
    package: str
    licence: str
    commercial_use: bool | None
    domains: tuple[str, ...]
    measured: str
