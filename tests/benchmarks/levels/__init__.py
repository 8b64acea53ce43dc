"""How good the rewriting is over recorded or generated conversations: one table.

conversations   where they come from, read one at a time
needs           which values of earlier tool traffic later calls and answers use
homes           which JSON object such a value belongs to
errors          the line of a failed result that says what failed
replay          one conversation, request by request: sums
figures         sums as shares
timing          milliseconds in floors at about 400 and 800 messages
report          the command
"""
