"""What was said is kept, whatever happens to who says it; and what stands of it depends on nothing but the words."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store.reviews import ReviewLog, in_force, standing
from pipeline.store.workspace import Workspace
from schemas.base import FrameSpan
from schemas.decision import RejectReason
from schemas.errors import WorkspaceError
from schemas.review import Review
from tests.helpers.films import environment
from tests.helpers.reviewing import at

NUM_KILLS, WRITERS = 50, 5

ACTIONS = st.one_of(
    st.just({"action": "accept"}),
    st.builds(lambda reason: {"action": "reject", "reason": reason}, st.sampled_from(list(RejectReason))),
    st.builds(lambda name: {"action": "domain", "domain": name}, st.sampled_from(["real", "mesh"])),
    st.builds(lambda name: {"action": "identity", "identity_id": name}, st.sampled_from(["ann", "bob"])),
    st.builds(lambda stop: {"action": "trim", "trim": FrameSpan(start=0, stop=stop)}, st.integers(1, 9)),
)


@st.composite
def talks(draw):
    """Reviews of three clips in one order of time, some of which undo earlier ones."""
    said = []
    for number in range(draw(st.integers(0, 12))):
        undone = draw(st.sampled_from([None, *said]))
        clip_id = undone.clip_id if undone else draw(st.sampled_from("abc"))
        what = {"action": "undo", "undoes": undone.review_id} if undone else draw(ACTIONS)
        version = draw(st.sampled_from(["old", "new"]))
        said.append(Review.of(clip_id=clip_id, version=version, who="eva", at=at(number), **what))
    return said


@given(talks(), st.randoms())
def test_what_stands_depends_on_the_words_and_not_on_their_order(said, chance):
    shuffled = list(said)
    chance.shuffle(shuffled)
    assert standing(shuffled, dict.fromkeys("abc", "new")) == standing(said, dict.fromkeys("abc", "new"))


@given(talks())
def test_of_each_kind_the_latest_word_on_this_version_stands(said):
    for clip_id, stands in standing(said, dict.fromkeys("abc", "new")).items():
        valid = in_force([review for review in said if review.clip_id == clip_id])
        kinds = {"accept": "verdict", "reject": "verdict"}
        for kind in ("verdict", "domain", "identity", "trim"):
            mine = [
                review
                for review in valid
                if kinds.get(review.action, review.action) == kind and review.version == "new"
            ]
            assert getattr(stands, kind) == (mine[-1] if mine else None)
        assert stands.stale == tuple(review for review in valid if review.version == "old")


@given(talks())
def test_an_undo_takes_one_word_back_and_its_own_undo_brings_it_again(said):
    for review in in_force(said):
        undo = Review.of(
            clip_id=review.clip_id, version="new", who="bob", at=at(100), action="undo", undoes=review.review_id
        )
        again = Review.of(
            clip_id=review.clip_id, version="new", who="bob", at=at(101), action="undo", undoes=undo.review_id
        )
        assert in_force([*said, undo]) == [kept for kept in in_force(said) if kept != review]
        assert in_force([*said, undo, again]) == in_force(said)


def test_a_review_is_stored_once_and_found_by_every_reader(tmp_path):
    workspace = Workspace(tmp_path, create=True)
    log, other = ReviewLog(workspace), ReviewLog(workspace)
    first = Review.of(clip_id="a", version="k", who="eva", at=at(2), action="accept")
    earlier = Review.of(clip_id="b", version="k", who="bob", at=at(1), action="accept")
    assert [log.append(first), other.append(first), other.append(earlier)] == [True, False, True]
    assert log.read() == other.read() == [earlier, first]


def test_a_damaged_review_is_named(tmp_path):
    workspace = Workspace(tmp_path, create=True)
    workspace.storage.write("decisions/a/x.json", b"{")
    with pytest.raises(WorkspaceError, match=r"decisions/a/x\.json is damaged .*: mend or delete that file"):
        ReviewLog(workspace).read()


def test_forgetting_a_clip_takes_all_that_was_said_of_it_and_nothing_else(tmp_path):
    log = ReviewLog(Workspace(tmp_path, create=True))
    said = [
        Review.of(clip_id=clip_id, version="k", who="eva", at=at(number), action="accept")
        for number, clip_id in enumerate(["a", "a", "ab", "b"])
    ]
    assert all(log.append(review) for review in said)
    assert log.forget(["a", "b", "never"]) == 3
    assert log.read() == [said[2]]
    assert log.forget(["a", "b", "never"]) == 0


# ---- kills -----------------------------------------------------------------------------------------

WRITER = textwrap.dedent("""
    import os, sys
    from pipeline.store.reviews import ReviewLog
    from pipeline.store.workspace import Workspace
    from schemas.review import Review
    from tests.helpers.reviewing import at

    log = ReviewLog(Workspace(sys.argv[1], create=True))
    for line in sys.stdin:  # one line starts one child, so that fifty kills cost one import
        if os.fork() == 0:
            number = 0
            while True:
                clip = f"c{number % 7}"
                review = Review.of(clip_id=clip, version="k", who=line.strip(), at=at(number), action="accept")
                assert log.append(review)
                os.write(1, f"{os.getpid()} {review.review_id}\\n".encode())
                number += 1
""")


def test_fifty_kills_lose_no_review_that_was_acknowledged(tmp_path):
    """Several writers append as fast as they can; each names a review only after ``append`` has returned."""
    parent = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    acknowledged: dict[int, list[str]] = {}
    try:
        for number in range(NUM_KILLS + WRITERS):
            parent.stdin.write(f"writer{number}\n")
            parent.stdin.flush()
            live = len(acknowledged)
            while len(acknowledged) == live:  # until the new one has begun; the others go on meanwhile
                pid, review_id = parent.stdout.readline().split()
                acknowledged.setdefault(int(pid), []).append(review_id)
            if number >= WRITERS:
                _kill(list(acknowledged)[number - WRITERS])
    finally:
        for pid in acknowledged:
            _kill(pid)
        parent.kill()
    for line in parent.stdout:
        if line.endswith("\n"):
            pid, review_id = line.split()
            acknowledged.setdefault(int(pid), []).append(review_id)
    parent.wait()
    there = {review.review_id for review in ReviewLog(Workspace(tmp_path, create=True)).read()}
    named = {review_id for mine in acknowledged.values() for review_id in mine}
    assert len(acknowledged) == NUM_KILLS + WRITERS
    assert len(named) > NUM_KILLS
    assert named <= there
    assert len(there) <= len(named) + len(acknowledged), "each may have stored one that it could not name any more"


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
