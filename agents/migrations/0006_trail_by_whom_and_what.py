"""The trail is read by whom, by what it is about and by day. Adds three indexes. Going back: drops them."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('agents', '0005_see_every_team'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='auditentry',
            index=models.Index(fields=['actor', '-number'], name='trail_by_actor'),
        ),
        migrations.AddIndex(
            model_name='auditentry',
            index=models.Index(fields=['subject', '-number'], name='trail_by_subject'),
        ),
        migrations.AddIndex(
            model_name='auditentry',
            index=models.Index(fields=['at'], name='trail_by_time'),
        ),
    ]
