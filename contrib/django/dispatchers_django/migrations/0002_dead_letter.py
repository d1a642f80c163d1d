"""Dead letters as a model without a table: the stores keep them."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Notes it; no statement is executed."""

    dependencies = (("dispatchers", "0001_initial"),)
    operations = (
        migrations.CreateModel(
            name="DeadLetter",
            fields=[("id", models.CharField(max_length=255, primary_key=True, serialize=False))],
            options={
                "verbose_name": "dead letter",
                "managed": False,
                "default_permissions": ("view",),
            },
        ),
    )
