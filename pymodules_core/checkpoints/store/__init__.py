"""Checkpoints on disk: immutable objects, commit records that are the truth, views for people.

Nothing here knows torch: an object is a file with a digest.
"""
