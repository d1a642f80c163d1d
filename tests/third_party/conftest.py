"""The foreign distribution is tested once it is installed, by `test_acme_queue.py`."""

collect_ignore = ["acme_queue"]
