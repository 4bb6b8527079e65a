"""Several replicas behind one API server."""
