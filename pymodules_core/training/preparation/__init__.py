"""What comes before the first step: the session, and all that is compared."""
