"""Which versions of Python, LiteLLM, redis-py, the other dependencies and the server the plugin runs with."""
