"""`manage.py dispatchers_worker` and `manage.py dispatchers_doctor`."""
