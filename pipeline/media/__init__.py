"""Frames and samples in, frames and samples out: the only folder that talks to FFmpeg (through PyAV).

In: untrusted files. Out: pictures and sound with exact times; clips and tars with the same bytes every time.
"""
