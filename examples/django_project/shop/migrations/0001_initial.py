"""Orders."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Creates them."""

    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.AutoField(primary_key=True, serialize=False)),
                ("customer", models.CharField(max_length=100)),
                ("booked", models.IntegerField(default=0)),
                ("attempt", models.IntegerField(default=0)),
                ("process", models.IntegerField(default=0)),
            ],
        ),
    )
