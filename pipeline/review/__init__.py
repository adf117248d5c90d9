"""Screening: what people say of clips, how it is kept, exchanged, and shown in a browser."""
