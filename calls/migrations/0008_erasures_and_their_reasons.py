"""Why a call's words are gone, which recordings are, and for whom a vendor was asked; the nightly look finds old calls by an index.

Adds three nullable or empty columns and a partial index: no table is rewritten. Going back drops them, nothing else is lost.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("calls", "0007_teams_privacy_and_keeping")]

    operations = [
        migrations.AddField(
            model_name="callsession",
            name="erased_why",
            field=models.CharField(
                blank=True,
                choices=[("retention", "the time that such calls are kept is over"), ("request", "somebody asked for it")],
                max_length=10,
            ),
            preserve_default=False,
        ),
        migrations.AddField(model_name="recording", name="erased_at", field=models.DateTimeField(blank=True, null=True)),
        migrations.AddField(
            model_name="vendorerasure", name="asked_for", field=models.CharField(blank=True, max_length=16), preserve_default=False
        ),
        migrations.AddIndex(
            model_name="callsession",
            index=models.Index(fields=["ended_at"], condition=models.Q(("erased_at", None)), name="calls_with_words_by_end"),
        ),
    ]
