"""The Celery application, for `SHOP_QUEUE=celery`."""

import os

from celery import Celery
from dispatchers_celery import register
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
app = Celery("shop", broker=settings.BROKER)
app.conf.task_default_queue = settings.BROKER_QUEUE
register(app)
