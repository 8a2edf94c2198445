"""Some transcribers have one model without a name; the desk asked for it all the same. Changes no table."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('agents', '0002_teams_recording_and_signed_tools'),
    ]

    operations = [
        migrations.AlterField(
            model_name='assistanttemplate',
            name='transcriber_model',
            field=models.CharField(blank=True, default='nova-3', max_length=100, verbose_name='transcriber model'),
        ),
        migrations.AlterField(
            model_name='templateversion',
            name='transcriber_model',
            field=models.CharField(blank=True, default='nova-3', max_length=100, verbose_name='transcriber model'),
        ),
    ]
