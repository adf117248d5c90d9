"""The demo's own films: rendered here, with the truth known for every frame, from no network and no weights."""
