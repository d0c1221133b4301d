"""The smallest useful pymodules plugin."""
