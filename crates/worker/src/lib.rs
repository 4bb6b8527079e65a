//! One Python process: its lifecycle, its socket and its supervisor.
