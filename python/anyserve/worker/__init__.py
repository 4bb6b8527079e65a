"""What runs in a worker process: `loader` finds the app, `_core` runs its handlers."""
