"""Make a transfer's attempts: wait and try again what may pass, and nothing else."""

import logging

import tenacity

from schemas.config import AcquireConfig
from schemas.errors import TransientError

logger = logging.getLogger(__name__)


def attempts(config: AcquireConfig, what: str) -> tenacity.Retrying:
    """Call this with a function: it is called up to ``config.num_attempts`` times while it raises TransientError.

    Args:
        config: attempts, and the first wait, which doubles each time.
        what: how the log names what is fetched.
    """

    def note(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.warning("%s, attempt %d: %s", what, state.attempt_number, error)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        stop=tenacity.stop_after_attempt(config.num_attempts),
        wait=tenacity.wait_exponential(multiplier=config.backoff_s, max=300),
        before_sleep=note,
        reraise=True,
    )
