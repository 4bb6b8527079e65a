"""An app whose handler takes a list: requests that wait together share one call."""
