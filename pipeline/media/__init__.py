"""Frames and samples in, frames and samples out: the only place that talks to FFmpeg (through PyAV)."""
