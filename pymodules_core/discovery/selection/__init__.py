"""Which plugins and modules join a run, and what of it is executed."""
