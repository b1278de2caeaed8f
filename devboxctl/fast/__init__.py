"""The commands that must start at once: standard library only, and little of it.

``tests/ctl/test_startup.py`` holds the list of modules that may be imported here.
"""
