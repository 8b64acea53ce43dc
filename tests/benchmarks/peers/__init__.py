"""This plugin beside other tools that edit an agent's history: `python -m tests.benchmarks peers`.

Every tool gets the same requests in the order an agent sends them, works on them with its own code at the
settings its documentation recommends, and is judged on the list it would send (`measures`). A tool whose
package is not there is shown as not installed; `spec` marks one rebuilt from its documented behaviour.
"""
