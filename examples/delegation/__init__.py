"""A replica that hands on what is too large for it."""
