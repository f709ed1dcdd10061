"""The project in this folder has tests of its own, which run inside it and not with ours."""

collect_ignore = ["project", "mistakes.py"]
