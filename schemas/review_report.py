"""How far the people who screen agree with one another, and with themselves."""

from schemas.base import Record


class AgreementRow(Record):
    """Two reviewers over the clips that both judged; the same name twice means second looks of one person.

    ``kappa`` is Cohen's: 1 is full agreement, 0 what chance alone would give, below 0 less than that. It is None where
    it says nothing: no clip in common, or both gave all of them one and the same verdict.
    """

    first: str
    second: str
    num_clips: int
    num_agreed: int
    kappa: float | None


class Agreement(Record):
    """Every pair of reviewers that judged a clip in common, by name, and everyone's blind second looks."""

    num_reviewers: int
    pairs: tuple[AgreementRow, ...]
    second_looks: tuple[AgreementRow, ...]
