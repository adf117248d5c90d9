"""Events: what was written comes back, in pieces as it comes, and failures carry the command's exit code."""

import logging
import math
import os
import resource
import signal
from pathlib import Path

import pytest

from schemas.errors import DataError, UsageError
from training.engine.events import (
    AlarmEvent,
    EventLog,
    FailedEvent,
    FinishedEvent,
    SavedEvent,
    StartedEvent,
    StepEvent,
    StoppedEvent,
    ValidatedEvent,
    failures_told,
    numbers,
    read_events,
)

EVENTS = [
    StartedEvent(recipe="anytalk", stage="pretrain", step=0, samples=0, total_samples=8, summary=("one", "two")),
    StepEvent(step=1, samples=4, total_samples=8, samples_s=2.5, wait_share=0.1, figures={"pixel": 0.5}),
    AlarmEvent(step=1, figure="entropy", sentence="keypoints are stuck"),
    ValidatedEvent(step=2, figures={"psnr_db": 12.0}, score=12.0),
    SavedEvent(step=2, checkpoint="run/checkpoints/step-000000002"),
    StoppedEvent(step=2, sentence="stopped after step 2"),
    FinishedEvent(step=2, sentence="finished after step 2"),
    FailedEvent(sentence="no such release", exit_code=2),
]


def test_events_come_back_whole_and_once(tmp_path):
    path = tmp_path / "events.jsonl"
    assert read_events(path) == ([], 0)
    log = EventLog(path)
    for event in EVENTS[:3]:
        log.write(event)
    events, offset = read_events(path)
    assert events == EVENTS[:3]
    log.close()
    again = EventLog(path)  # of a run that goes on
    for event in EVENTS[3:]:
        again.write(event)
    again.close()
    events, offset = read_events(path, offset)
    assert events == EVENTS[3:]
    assert read_events(path, offset) == ([], offset)


def test_half_a_line_waits_and_a_foreign_one_is_passed_over(tmp_path):
    path = tmp_path / "events.jsonl"
    line = EVENTS[1].model_dump_json().encode() + b"\n"
    path.write_bytes(b'{"kind": "sung"}\nnoise\n' + line + line[:10])
    events, offset = read_events(path)
    assert events == [EVENTS[1]]
    with path.open("ab") as file:
        file.write(line[10:])
    assert read_events(path, offset)[0] == [EVENTS[1]]


def test_what_is_no_number_is_none():
    figures = numbers({"a": math.nan, "b": math.inf, "c": 1.0})
    assert figures == {"a": None, "b": None, "c": 1.0}
    event = ValidatedEvent(step=1, figures=figures, score=None)
    assert ValidatedEvent.model_validate_json(event.model_dump_json()) == event


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (UsageError("no such preset"), FailedEvent(sentence="no such preset", exit_code=2)),
        (DataError("a shard is damaged"), FailedEvent(sentence="a shard is damaged", exit_code=1)),
        (ZeroDivisionError("by zero"), FailedEvent(sentence="ZeroDivisionError: by zero", exit_code=1)),
    ],
)
def test_a_failure_is_told_and_goes_on(error, event, tmp_path):
    path = tmp_path / "events.jsonl"
    with pytest.raises(type(error)), failures_told(path):
        raise error
    assert read_events(path)[0] == [event]


def test_a_file_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"--events: .* cannot be written"):
        EventLog(tmp_path / "nowhere" / "events.jsonl")
    EventLog(None).write(EVENTS[0])


def test_a_pipe_or_a_device_is_refused_before_it_can_hold_up_or_end_a_training(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/full", tmp_path):
        with pytest.raises(UsageError, match="is no plain file"):
            EventLog(Path(path))


def test_a_training_goes_on_when_its_events_can_no_longer_be_written(tmp_path, caplog):
    """The disk is full, as the kernel says it of a file that may grow no further."""
    path = tmp_path / "events.jsonl"
    events = EventLog(path)
    events.write(EVENTS[0])
    before, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, limits[1]))
    try:
        with caplog.at_level(logging.WARNING):
            events.write(EVENTS[1])
            events.write(EVENTS[2])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert sum("can no longer be written" in record.message for record in caplog.records) == 1
    assert read_events(path)[0] == EVENTS[:1]


def test_half_a_line_of_a_killed_run_swallows_no_event_of_the_next(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(EVENTS[0].model_dump_json().encode()[:20])
    events = EventLog(path)
    events.write(EVENTS[1])
    events.close()
    assert read_events(path)[0] == [EVENTS[1]]


def test_an_error_is_the_one_that_is_raised_even_where_its_event_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match="the cause"), failures_told(tmp_path / "absent" / "events.jsonl"):
        raise DataError("the cause")


def test_an_interrupt_is_told(tmp_path):
    path = tmp_path / "events.jsonl"
    with pytest.raises(KeyboardInterrupt), failures_told(path):
        raise KeyboardInterrupt
    assert read_events(path)[0] == [FailedEvent(sentence="interrupted", exit_code=130)]
