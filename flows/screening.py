"""What a person is told when clips wait for their eyes before they are released.

The same lines end ``anitalk build --screen`` and stand in a suspended run's note, so that the way on is the same
from a terminal and from a deployment.
"""

import shlex

_RELEASE_NAME = "NAME"


def screening_lines(workspace: str, release: str) -> list[str]:
    """The commands that show the clips to a person, take over what others said, and release the rest.

    Args:
        workspace: folder or URI of the workspace.
        release: the name that was asked for; a placeholder stands for an empty one.
    """
    quoted = shlex.quote(workspace)
    return [
        "# look at the clips in a browser: accept, reject, trim",
        f"anitalk review --workspace {quoted}",
        "# or take over what somebody else decided",
        f"anitalk review import FILE --workspace {quoted}",
        "# release what is left",
        f"anitalk release {shlex.quote(release or _RELEASE_NAME)} --workspace {quoted}",
    ]
