"""What became of everything that entered a build, step by step; nothing may vanish without a reason.

A step counts one kind of thing (sources, shots, tracks, clips), named by ``unit``: where the unit changes,
one step's ``passed`` need not be the next one's ``entered``, since one source becomes many shots.
"""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from schemas.base import Record, is_absent


class FunnelDrop(Record):
    """One reason for leaving at a step.

    ``reason`` is a RejectReason or an error class. ``median_measured`` is the median of the numbers that
    caused the drops and ``limit`` what they missed; None where the reason has no number, or where several
    limits applied (domains may differ). ``by`` is there where a person decided, who may give a filter's reason.
    """

    reason: str
    count: PositiveInt
    median_measured: float | None = None
    limit: float | None = None
    by: Literal["reviewer"] | None = Field(default=None, exclude_if=is_absent)

    @property
    def label(self) -> str:
        """The reason as tables and pictures show it: a person's is marked as one."""
        return self.reason if self.by in {None, self.reason} else f"{self.reason} (reviewer)"


class FunnelStep(Record):
    """One step: of ``entered`` items, ``passed`` went on, ``drops`` left and ``pending`` have no outcome yet.

    ``overruled`` of those that passed did so because a reviewer kept what a limit would have dropped.

    Raises:
        ValueError: unless entered = passed + dropped + pending: nothing may vanish without a reason.
    """

    stage: str
    entered: NonNegativeInt
    passed: NonNegativeInt
    drops: tuple[FunnelDrop, ...] = ()
    unit: str = "clips"
    pending: NonNegativeInt = 0
    overruled: PositiveInt | None = Field(default=None, exclude_if=is_absent)

    @property
    def num_dropped(self) -> int:
        """Items lost at this step, for all reasons."""
        return sum(drop.count for drop in self.drops)

    @model_validator(mode="after")
    def _sums_up(self) -> Self:
        if self.entered != self.passed + self.num_dropped + self.pending:
            raise ValueError(
                f"the funnel step {self.stage!r} loses items without a reason: "
                f"{self.entered} entered, {self.passed} passed, {self.num_dropped} dropped, {self.pending} pending"
            )
        if (self.overruled or 0) > self.passed:
            raise ValueError(f"the funnel step {self.stage!r}: {self.overruled} overruled, but {self.passed} passed")
        reasons = [drop.label for drop in self.drops]
        if len(reasons) != len(set(reasons)):
            raise ValueError(f"the funnel step {self.stage!r} counts one reason twice: {sorted(reasons)}")
        return self


class Funnel(Record):
    """The steps of a build in the order in which they happened."""

    steps: tuple[FunnelStep, ...]

    @model_validator(mode="after")
    def _continuous(self) -> Self:
        for before, after in zip(self.steps, self.steps[1:], strict=False):
            if before.unit == after.unit and after.entered != before.passed:
                raise ValueError(
                    f"the funnel breaks between {before.stage!r} and {after.stage!r}: "
                    f"{before.passed} {before.unit} left the one, {after.entered} entered the other"
                )
        return self
