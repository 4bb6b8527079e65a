"""The smallest apps: the request itself, inputs by name, and a coroutine."""
