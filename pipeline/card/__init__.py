"""What a release says of itself, made from the release alone.

In: the record and tables of a release. Out: README.md, card.html and pictures.
"""
