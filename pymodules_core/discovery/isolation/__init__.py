"""What surrounds a call of other people's code: global state and time."""
