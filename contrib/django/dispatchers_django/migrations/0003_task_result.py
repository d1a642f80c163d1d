"""The table for results of `django.tasks`."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Creates it."""

    dependencies = (("dispatchers", "0002_dead_letter"),)
    operations = (
        migrations.CreateModel(
            name="TaskResult",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("backend", models.CharField(max_length=255)),
                ("task", models.TextField()),
                ("queue", models.CharField(max_length=255)),
                ("priority", models.SmallIntegerField()),
                ("run_after", models.DateTimeField(null=True)),
                ("args", models.TextField()),
                ("kwargs", models.TextField()),
                ("status", models.CharField(max_length=10)),
                ("owner", models.CharField(default="", max_length=32)),
                ("lease_until", models.DateTimeField(null=True)),
                ("enqueued_at", models.DateTimeField()),
                ("started_at", models.DateTimeField(null=True)),
                ("last_attempted_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(db_index=True, null=True)),
                ("worker_ids", models.TextField(default="[]")),
                ("errors", models.TextField(default="[]")),
                ("return_value", models.TextField(default="null")),
            ],
            options={
                "verbose_name": "task result",
                "ordering": ("-enqueued_at",),
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(fields=["status", "lease_until"], name="dispatchers_result_lease")
                ],
            },
        ),
    )
