"""Networks and classifiers behind small interfaces; loaded once and passed in."""
