"""The networks, one module each, with their shapes named; ``anytalk`` puts them together."""
