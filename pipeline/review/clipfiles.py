"""Files of clips on this machine's disk, from which a browser reads any part, and their thumbnails.

Both lie in the workspace's scratch folder: what is made there once is kept until ``anitalk gc`` or a take-down, which
empty it, so that no picture outlives the film that it shows.
"""

import os
import tempfile
import threading
from pathlib import Path

import av
import cv2
from av.error import FFmpegError

from pipeline.store.storage import clear_write_errors
from pipeline.store.workspace import Workspace
from schemas.errors import DecodeError, WorkspaceError

THUMB_PX = 224
_THUMB_QUALITY = 82
_MOST_CACHED_BYTES = 2 * 1024**3  # of an object store's clips: some thousands of them


class ClipFiles:
    """Where the media and thumbnails of clips lie; safe for many threads.

    Args:
        workspace: local, or in an object store, whose clips are then fetched and the least used dropped again.
        most_bytes: that fetched clips may take.
    """

    def __init__(self, workspace: Workspace, *, most_bytes: int = _MOST_CACHED_BYTES) -> None:
        self._workspace, self._most_bytes = workspace, most_bytes
        self._folder = workspace.scratch_folder / "review"
        self._turns = [threading.Lock() for _ in range(16)]  # two requests must not make the same file at once
        self._dropping = threading.Lock()

    def media(self, key: str) -> Path:
        """The mp4 of a clip by its key.

        Raises:
            WorkspaceError: when it is missing from the workspace.
        """
        name = f"results/clip/{key}/mp4"
        storage = self._workspace.storage
        path = Path(storage.path(name)) if storage.is_local else self._folder / "clips" / f"{key}.mp4"
        if storage.is_local or path.is_file():
            if not path.is_file():
                raise WorkspaceError(f"{path} is missing: delete its folder and run 'anitalk build' again")
            if not storage.is_local:
                os.utime(path)
            return path
        with self._turn(key):
            if not path.is_file():
                try:
                    storage.get_file(name, path)
                except FileNotFoundError as error:
                    raise WorkspaceError(f"{storage.path(name)} is missing: run 'anitalk build' again") from error
        self._drop_least_used(path.parent, but=path)
        return path

    def thumbnail(self, key: str) -> Path:
        """A small JPEG of the frame in the middle of a clip, made at the first call.

        Raises:
            DecodeError: when the clip cannot be read.
            WorkspaceError: when it is missing, or the thumbnail cannot be written.
        """
        path = self._folder / "thumbs" / key[:2] / f"{key}.jpg"
        if path.is_file():
            return path
        media = self.media(key)
        with self._turn(key):
            if not path.is_file():
                _write_whole(path, _middle_frame(media))
        return path

    def _turn(self, key: str) -> threading.Lock:
        return self._turns[int(key[:4], 16) % len(self._turns)]

    def _drop_least_used(self, folder: Path, *, but: Path) -> None:
        with self._dropping:
            known = [(path, path.stat()) for path in folder.glob("*.mp4")]
            total = sum(stat.st_size for _, stat in known)
            for path, stat in sorted(known, key=lambda pair: pair[1].st_mtime):
                if total <= self._most_bytes:
                    return
                if path != but:
                    path.unlink(missing_ok=True)
                    total -= stat.st_size


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all; a lost one is made again, so nothing waits for the disk."""
    with clear_write_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
            temporary.write(data)
        Path(temporary.name).replace(path)


def _middle_frame(path: Path) -> bytes:
    """The JPEG of a clip's middle frame; every frame is a key frame, so only that one is decoded."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            container.seek((stream.duration or 0) // 2, stream=stream)
            picture = next(container.decode(stream)).to_ndarray(format="bgr24")
    except (FFmpegError, IndexError, StopIteration) as error:
        raise DecodeError(f"{path} cannot be decoded: {error}") from error
    small = cv2.resize(picture, (THUMB_PX, THUMB_PX), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _THUMB_QUALITY])[1].tobytes()
