"""The Celery application, for `SHOP_QUEUE=celery`."""

import os

from celery import Celery
from dispatchers_celery import register

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
app = Celery("shop", broker=os.environ.get("SHOP_BROKER", "redis://localhost:6379/0"))
app.conf.task_default_queue = os.environ.get("SHOP_BROKER_QUEUE", "shop")
register(app)
