"""`proxy-plugin demo`: a fake provider, a real LiteLLM proxy and an ordinary client on one machine."""
