"""Versions of the plugin beside each other, and data that an older or a newer one wrote."""
