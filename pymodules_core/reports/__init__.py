"""Shows what runs wrote: several side by side as a table, one or more as a page with charts.

Reads ``data/`` and changes nothing in it; needs no torch.
"""
