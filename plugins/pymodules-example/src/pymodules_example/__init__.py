"""A frozen edge detector for perceptual losses, as a module of pymodules."""
