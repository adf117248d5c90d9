"""When and where the pipeline runs, and the command line."""
