"""From files to modules: which weights, how they match, how they are put in."""
