"""Pictures laid out for people; knows no workspace.

In: frames, points and numbers. Out: PNG files with the same bytes every time.
"""
