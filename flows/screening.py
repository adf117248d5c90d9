"""What a person is told when clips wait for their eyes before they are released.

The same lines end ``anitalk build --screen`` and stand in a suspended run's note, so that the way on is the same
from a terminal and from a deployment.
"""

import json
import shlex

_RELEASE_NAME = "NAME"


def screening_lines(workspace: str, release: str) -> list[str]:
    """The commands that look at the clips, reject one, and release the rest, ready to be copied.

    Args:
        workspace: folder or URI of the workspace.
        release: the name that was asked for; a placeholder stands for an empty one.
    """
    place = shlex.quote(workspace)
    decision = {"clip_id": "CLIP", "keep": False, "by": "reviewer", "reason": "reviewer", "who": "YOU"}
    return [
        "# review: list the clips, draw one, and leave out what should not be released",
        f"anitalk clips --workspace {place}",
        f"anitalk show CLIP --workspace {place} --output CLIP.png",
        f"# to reject CLIP, write this to {workspace.rstrip('/')}/decisions/CLIP.json",
        f"#   {json.dumps(decision, separators=(',', ':'))}",
        "# release what is left",
        f"anitalk release {shlex.quote(release or _RELEASE_NAME)} --workspace {place}",
    ]
