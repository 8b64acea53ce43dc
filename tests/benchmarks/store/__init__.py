"""The store beside other ways to keep a conversation in Redis: `python -m tests.benchmarks store`.

All contestants write the same messages to one server of their own making, in turn, in small rounds, so that a busy
machine slows all of them. An append adds a tool's call and its result to a session that is there.
"""
