"""The summary of one completed subtask: extractive, deterministic, no model call."""

from proxy_plugin.history.summary.engine import summarise
from proxy_plugin.history.summary.stated import Stated, is_summary

__all__ = ["Stated", "is_summary", "summarise"]
