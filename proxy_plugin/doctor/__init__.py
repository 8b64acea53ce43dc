"""`proxy-plugin doctor`: is this machine ready to run a LiteLLM config with the plugin, and what to fix."""
