"""Settings. `SHOP_QUEUE` alone says how work gets to a worker, `SHOP_OUTBOX` what survives."""

import os
from pathlib import Path

BASE = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SHOP_DATA", BASE))

NAME = os.environ.get("SHOP_QUEUE", "inline")
BROKER = os.environ.get("SHOP_BROKER", "redis://localhost:6379/0")
BROKER_QUEUE = os.environ.get("SHOP_BROKER_QUEUE", "shop")

QUEUES = {
    "inline": {"BACKEND": "inline", "OPTIONS": {"retries": "immediate"}},
    "sqlite": {"BACKEND": "sqlite", "OPTIONS": {"path": str(DATA / "queue.sqlite3")}},
    "celery": {"BACKEND": "celery", "OPTIONS": {"app": "project.celery:app"}},
    "cloud_tasks": {"BACKEND": "cloud_tasks"},  # `dispatchers dev cloud_tasks` prints the rest
    "django_rq": {"BACKEND": "django_rq", "OPTIONS": {"queue": BROKER_QUEUE}},
    "django_q": {"BACKEND": "django_q"},
    "django_tasks": {"BACKEND": "django_tasks"},
}
# Applications and settings of the queues that are Django's own.
APPS = {"django_rq": "django_rq", "django_q": "django_q", "django_tasks": "django_tasks_db"}
RQ_QUEUES = {BROKER_QUEUE: {"URL": BROKER}}
Q_CLUSTER = {"name": "shop", "orm": "default", "timeout": 60, "retry": 120}
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}

CLAIMS = {"idempotency": "dispatchers_django.stores:IdempotencyStore"}
CHOSEN = QUEUES[NAME]

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
    *([APPS[NAME]] if NAME in APPS else []),
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(DATA / "shop.sqlite3"),
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
    }
}
# What fails is told where the process was started; by default Django tells only `ADMINS`.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "project.urls"
SECRET_KEY = os.environ.get("SECRET_KEY", "for development only")
USE_TZ = True
WSGI_APPLICATION = "project.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
