"""Reviewed inputs, shipped as data: source lists and build configurations."""
