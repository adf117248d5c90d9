"""Figures of evaluation, each by its definition; ``table`` says of every one how far it was verified."""
