"""What reads releases. Never imports pipeline: the shard format is the contract between them."""
