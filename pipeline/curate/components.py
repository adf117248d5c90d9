"""Connected components of a graph of names: what is tied to what, directly or through others (union-find)."""

from collections.abc import Iterable


class Components:
    """Names that grow together as pairs are joined; a component is named by its smallest member.

    So neither the names nor the components depend on the order in which pairs were joined.
    """

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def name_of(self, member: str) -> str:
        """The smallest name that a name is connected with, itself included; a new name is alone."""
        self._parents.setdefault(member, member)
        while self._parents[member] != member:
            self._parents[member] = member = self._parents[self._parents[member]]
        return member

    def join(self, first: str, second: str) -> None:
        """Connect two names."""
        low, high = sorted((self.name_of(first), self.name_of(second)))
        self._parents[high] = low

    def names(self) -> dict[str, str]:
        """By name: its component's name."""
        return {member: self.name_of(member) for member in list(self._parents)}


def components(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The smallest of the names that each name is connected with, itself included."""
    joined = Components()
    for first, second in pairs:
        joined.join(first, second)
    return joined.names()
