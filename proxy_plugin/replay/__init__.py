"""`proxy-plugin replay`: what the plugin would do to conversations that were recorded already.

Recordings are read (`files`, one module a form) into conversations, a conversation is the requests that
its agent made (`conversations`), each request is rewritten as the proxy would (`measure`) and what came of
it is added up (`figures`) and shown (`table`, `plot`, `show`). Nothing is sent anywhere.
"""
