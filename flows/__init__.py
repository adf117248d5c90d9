"""When and where the pipeline runs, and the command line."""

from anitalk import shadowed

# Deployments and workers come in here, past the command line: they must not run another project's packages either.
if (_problem := shadowed()) is not None:
    raise ImportError(_problem)
