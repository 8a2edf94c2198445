"""Every line a question an operator asks. The defaults run on a laptop; production complains at start (`checks`)."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from celery.schedules import crontab
from django.core.exceptions import ImproperlyConfigured

from supportvoice.embedded import socket_path
from supportvoice.environment import Env
from supportvoice.postgres import POOL

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"

env = Env()  # NAME or NAME_FILE, for secrets
if (BASE_DIR / ".env").exists():
    env.read_env(BASE_DIR / ".env")

DEBUG = env.bool("DEBUG", default=True)
SECRET_KEY = env("SECRET_KEY", default="laptop-only-not-a-secret" if DEBUG else "")
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])  # former keys, while log-ins and calls of their time go on
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["*"] if DEBUG else [])

PORT = env.int("PORT", default=8000)
PUBLIC_URL = env("PUBLIC_URL", default=f"http://localhost:{PORT}").rstrip("/")  # how vendors reach us; signatures are checked against it
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[]) or [PUBLIC_URL]  # a proxy may end TLS before us
TRUSTED_PROXIES = env.list("TRUSTED_PROXIES", default=[])  # addresses and networks whose X-Forwarded-For is believed
SERVE_ROLE = env("SERVE_ROLE", default="all")  # all | media | web; set by `serve` for its children

VAPI_API_KEY = env("VAPI_API_KEY", default="")
VAPI_BASE_URL = env("VAPI_BASE_URL", default="https://api.vapi.ai").rstrip("/")
VAPI_SOCKET_HOSTS = env.list("VAPI_SOCKET_HOSTS", default=[])  # empty: the host of VAPI_BASE_URL, its sub-domains and *.vapi.ai
VAPI_BACKUP_API_KEY = env("VAPI_BACKUP_API_KEY", default="")  # a second account, for when the first one does not take our calls
VAPI_BACKUP_BASE_URL = env("VAPI_BACKUP_BASE_URL", default="").rstrip("/") or VAPI_BASE_URL
VAPI_WEBHOOK_SECRETS = env.list("VAPI_WEBHOOK_SECRET", default=[])  # the first is sent to Vapi; all are accepted
TOOL_ALLOWED_PRIVATE = env.list("TOOL_ALLOWED_PRIVATE", default=[])  # host:port of private addresses tools may call
TOOL_SIGNING_SECRET = env("TOOL_SIGNING_SECRET", default="")  # signs requests to tools; a tool may have one of its own

TWILIO_ACCOUNT_SID = env("TWILIO_ACCOUNT_SID", default="")
TWILIO_AUTH_TOKENS = env.list("TWILIO_AUTH_TOKEN", default=[])  # several while rotating
TWILIO_BASE_URL = env("TWILIO_BASE_URL", default="https://api.twilio.com").rstrip("/")
TWILIO_PHONE_NUMBER = env("TWILIO_PHONE_NUMBER", default="")

CALL_TTL = timedelta(seconds=env.int("CALL_TTL_S", default=3600))  # silent this long: cleaned up
SWEEP_SECONDS = env.int("SWEEP_SECONDS", default=60)
RETENTION_DAYS = env.int("RETENTION_DAYS", default=90)  # what was said is kept for so long; an agent or a line may say less
if RETENTION_DAYS < 0:
    raise ImproperlyConfigured("RETENTION_DAYS must be 0 or more.")
SPOOL_DIR = BASE_DIR / (env("SPOOL_DIR", default="") or "var/spool")  # what is told while the database is away waits here
DRAIN_SECONDS = env.int("DRAIN_SECONDS", default=600)
MAX_CALLS = env.int("MAX_CALLS", default=50)  # with the AI at once; half of what two cores were measured to carry in time
if MAX_CALLS < 1:
    raise ImproperlyConfigured("MAX_CALLS must be 1 or more.")
MEMORY_LIMIT_MIB = env.int("MEMORY_LIMIT_MIB", default=0)  # of each serving process, beside the system's own limits; 0: none
if MEMORY_LIMIT_MIB < 0:
    raise ImproperlyConfigured("MEMORY_LIMIT_MIB must be 0 or more.")
ALLOW_INSECURE = env.bool("ALLOW_INSECURE", default=False)

INSTALLED_APPS = [
    *(["daphne"] if "runserver" in sys.argv else []),  # for `runserver` alone: it loads Twisted into every process
    "supportvoice.apps.DeskConfig",  # Django's admin, on `supportvoice.desk`
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "supportvoice",
    "agents",
    "calls",
]

MIDDLEWARE = [
    "calls.webhooks.address.AtThePublicAddress",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "calls.console.policy.ContentPolicyMiddleware",
    "supportvoice.static.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "calls.console.session.LogInLimits",
    "calls.console.viewers_zone.ViewersZone",
    "django.contrib.messages.middleware.MessageMiddleware",
]

ROOT_URLCONF = "supportvoice.urls"
ASGI_APPLICATION = "supportvoice.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASE_URL = env("DATABASE_URL", default="").strip() or f"sqlite:///{BASE_DIR / 'db.sqlite3'}"
DATABASES = {"default": env.db_url_config(DATABASE_URL)}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["ENGINE"] = "supportvoice.sqlite3"
    DATABASES["default"]["CONN_MAX_AGE"] = None  # they are kept with the threads they belong to: `supportvoice.threads`
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 1.0,
        # secure_delete: what is rewritten or deleted is no longer in the file. cache_size: half a MiB for each thread, not two: the
        # kernel has the pages too, and with two a process grows for its first ten thousand calls
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA secure_delete=ON; PRAGMA cache_size=-512;",
    }
else:
    DATABASES["default"]["ENGINE"] = "supportvoice.postgresql"
    DATABASES["default"]["CONN_MAX_AGE"] = 0  # back to the pool
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True  # the pool would lend connections that a restart of the server cut
    DATABASES["default"].setdefault("OPTIONS", {}).setdefault("connect_timeout", 2)
    DATABASES["default"]["OPTIONS"]["pool"] = POOL
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_SOCKET = socket_path(VAR_DIR)  # the embedded Valkey of this checkout
REDIS_URL = env("REDIS_URL", default="")
REDIS_EMBEDDED = not REDIS_URL  # serve, worker and beat then share one, started by whoever comes first
if REDIS_EMBEDDED:
    REDIS_URL = f"unix://{REDIS_SOCKET}"
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        # redis-py's default 5 s socket timeout equals the layer's blocking read and kills live calls (channels_redis#422)
        "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": None}]},
    }
}

CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1) if REDIS_URL.startswith("unix://") else REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_PUBLISH_RETRY = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# A task that says nothing of its time has a minute, the usual one between two sweeps. Whoever does not stop when told is killed, after
# more than the two minutes that one of them may take. No work is lost by either: rows say what is to do, and the schedule reads them.
CELERY_TASK_SOFT_TIME_LIMIT, CELERY_TASK_TIME_LIMIT = 60, 150
CELERY_BEAT_SCHEDULER = "celery.beat:Scheduler"  # the schedule is these lines; there is nothing to keep in a file
_EVERY_SWEEP = {"schedule": timedelta(seconds=SWEEP_SECONDS), "options": {"expires": SWEEP_SECONDS}}
CELERY_BEAT_SCHEDULE = {
    "sweep": {"task": "calls.tasks.sweep", **_EVERY_SWEEP},
    "reprocess-inbox": {"task": "calls.tasks.reprocess_inbox", **_EVERY_SWEEP},
    "end-orphans": {"task": "calls.tasks.end_orphans", "schedule": timedelta(seconds=20), "options": {"expires": 20}},  # within 60 s
    "keep-time": {"task": "calls.tasks.keep_time", "schedule": crontab(hour=3, minute=17), "options": {"expires": 6 * 3600}},  # UTC
    "ask-vendors": {"task": "calls.tasks.ask_vendors", **_EVERY_SWEEP},
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_timeout": 2.0,
    "socket_connect_timeout": 0.5,
    "max_retries": 1,
    "interval_start": 0.0,
    "interval_step": 0.1,
}

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = None  # files are served from the apps' own folders: nothing to collect
WHITENOISE_USE_FINDERS = True
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/"

BEHIND_TLS = PUBLIC_URL.startswith("https://")  # a proxy ends it; whatever comes through is taken as https
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if BEHIND_TLS and not DEBUG else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SILENCED_SYSTEM_CHECKS = [
    "security.W008",  # redirecting http is the proxy's work: here everything came by TLS
    "security.W021",  # whether a whole domain is put on the browsers' preload list is its owner's decision
]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = BEHIND_TLS
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_ENGINE = "supportvoice.sessions"
SESSION_COOKIE_AGE = 8 * 3600  # from the last page; `calls.console.session` has the longest time of all

DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 1024 * 1024  # `limits` has already held each door to its own, smaller figure
DATA_UPLOAD_MAX_NUMBER_FIELDS = 200

PUBLIC_HOST = urlsplit(PUBLIC_URL).netloc

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"fields": {"()": "supportvoice.logs.FieldsFormatter"}},
    "filters": {"seldom": {"()": "supportvoice.seldom.Seldom"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "fields"}},
    "root": {"handlers": ["console"], "level": "INFO"},
    "loggers": {
        "django": {"handlers": [], "propagate": True},
        "django.server": {"handlers": [], "propagate": True},
        "picows": {"level": "WARNING"},  # two lines of addresses and buffer sizes a call
        "urllib3": {"level": "ERROR"},  # of an answer with odd headers it tells the address, which may be a capability
        "psycopg.pool": {"filters": ["seldom"]},
    },
}
