"""What must not change when code only moves: keys that are committed here, and two commits compared on one machine."""
