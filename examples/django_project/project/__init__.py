"""The project: settings, urls, and what servers and Celery start from."""
