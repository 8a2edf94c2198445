"""Transcribers tell a final in pieces, or the whole turn again, and the report tells it once more. A line now says whether
another one has its words (`retold`) and whether only the report knew it. SQLite rewrites the lines' table. Going back
shows retold lines again; nothing is lost.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('calls', '0003_reports_recordings_and_callbacks'),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name='transcriptline',
            name='one_row_per_final_line',
        ),
        migrations.AddField(
            model_name='transcriptline',
            name='from_report',
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name='transcriptline',
            name='retold',
            field=models.BooleanField(default=False),
        ),
        migrations.AddConstraint(
            model_name='transcriptline',
            constraint=models.UniqueConstraint(fields=('call', 'vapi_call_id', 'role', 'vendor_ms', 'text_hash', 'from_report'), name='one_row_per_final_line'),
        ),
    ]
