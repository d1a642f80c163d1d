"""Settings. `SHOP_QUEUE` alone says how work gets to a worker, `SHOP_OUTBOX` what survives."""

import os
from pathlib import Path

BASE = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SHOP_DATA", BASE))

QUEUES = {
    "inline": {"BACKEND": "inline", "OPTIONS": {"retries": "immediate"}},
    "sqlite": {"BACKEND": "sqlite", "OPTIONS": {"path": str(DATA / "queue.sqlite3")}},
    "celery": {"BACKEND": "celery", "OPTIONS": {"app": "project.celery:app"}},
    "cloud_tasks": {"BACKEND": "cloud_tasks"},  # `dispatchers dev cloud_tasks` prints the rest
}
CLAIMS = {"idempotency": "dispatchers_django.stores:IdempotencyStore"}
CHOSEN = QUEUES[os.environ.get("SHOP_QUEUE", "inline")]

QUEUE = {**CHOSEN, "OPTIONS": {**CHOSEN.get("OPTIONS", {}), **CLAIMS}}
# A row beside the order, and no commit without it; it leaves when the queue takes it.
OUTBOX = {"BACKEND": "outbox", "OPTIONS": {"to": "queue", "store": "django:default"}}

HAS_OUTBOX = os.environ.get("SHOP_OUTBOX") == "1"
DISPATCHERS = {"default": OUTBOX, "queue": QUEUE} if HAS_OUTBOX else {"default": QUEUE}
DISPATCHERS_SETTINGS = {"endpoint": CLAIMS}

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "dispatchers_django",
    "shop",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(DATA / "shop.sqlite3"),
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
    }
}
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "project.urls"
SECRET_KEY = os.environ.get("SECRET_KEY", "for development only")
USE_TZ = True
WSGI_APPLICATION = "project.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
