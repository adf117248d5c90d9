"""What things are: records, conventions and the shard format; no behaviour beyond validation."""
