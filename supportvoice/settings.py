"""Every line a question an operator asks. The defaults run on a laptop; production complains at start (`checks`)."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import environ

from supportvoice.embedded import socket_path

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"

env = environ.FileAwareEnv()  # NAME or NAME_FILE, for secrets
env.read_env(BASE_DIR / ".env")

DEBUG = env.bool("DEBUG", default=True)
SECRET_KEY = env("SECRET_KEY", default="laptop-only-not-a-secret" if DEBUG else "")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["*"] if DEBUG else [])

PORT = env.int("PORT", default=8000)
PUBLIC_URL = env("PUBLIC_URL", default=f"http://localhost:{PORT}").rstrip("/")  # how vendors reach us; signatures are checked against it
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[]) or [PUBLIC_URL]  # a proxy may end TLS before us
SERVE_ROLE = env("SERVE_ROLE", default="all")  # all | media | web; set by `serve` for its children

VAPI_API_KEY = env("VAPI_API_KEY", default="")
VAPI_BASE_URL = env("VAPI_BASE_URL", default="https://api.vapi.ai").rstrip("/")
VAPI_SOCKET_HOSTS = env.list("VAPI_SOCKET_HOSTS", default=[])  # empty: the host of VAPI_BASE_URL, its sub-domains and *.vapi.ai
VAPI_WEBHOOK_SECRETS = env.list("VAPI_WEBHOOK_SECRET", default=[])  # the first is sent to Vapi; all are accepted
TOOL_ALLOWED_PRIVATE = env.list("TOOL_ALLOWED_PRIVATE", default=[])  # host:port of private addresses tools may call
TOOL_SIGNING_SECRET = env("TOOL_SIGNING_SECRET", default="").strip()  # signs requests to tools; a tool may have one of its own

TWILIO_ACCOUNT_SID = env("TWILIO_ACCOUNT_SID", default="")
TWILIO_AUTH_TOKENS = env.list("TWILIO_AUTH_TOKEN", default=[])  # several while rotating
TWILIO_BASE_URL = env("TWILIO_BASE_URL", default="https://api.twilio.com").rstrip("/")
TWILIO_PHONE_NUMBER = env("TWILIO_PHONE_NUMBER", default="")

CALL_TTL = timedelta(seconds=env.int("CALL_TTL_S", default=3600))  # silent this long: cleaned up
SWEEP_SECONDS = env.int("SWEEP_SECONDS", default=60)
DRAIN_SECONDS = env.int("DRAIN_SECONDS", default=600)
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
    "django.middleware.security.SecurityMiddleware",
    "calls.console.policy.ContentPolicyMiddleware",
    "supportvoice.static.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
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
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
else:
    DATABASES["default"]["CONN_MAX_AGE"] = 0  # back to the pool
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True  # the pool would lend connections that a restart of the server cut
    DATABASES["default"].setdefault("OPTIONS", {})["pool"] = {"min_size": 1, "max_size": 20, "timeout": 1.0}
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
CELERY_BEAT_SCHEDULER = "celery.beat:Scheduler"  # the schedule is these lines; there is nothing to keep in a file
_EVERY_SWEEP = {"schedule": timedelta(seconds=SWEEP_SECONDS), "options": {"expires": SWEEP_SECONDS}}
CELERY_BEAT_SCHEDULE = {
    "sweep": {"task": "calls.tasks.sweep", **_EVERY_SWEEP},
    "reprocess-inbox": {"task": "calls.tasks.reprocess_inbox", **_EVERY_SWEEP},
    "end-orphans": {"task": "calls.tasks.end_orphans", "schedule": timedelta(seconds=20), "options": {"expires": 20}},  # within 60 s
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

SECURE_CONTENT_TYPE_NOSNIFF = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_URL.startswith("https://")
SESSION_ENGINE = "supportvoice.sessions"
SESSION_COOKIE_AGE = 8 * 3600

DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 1024 * 1024  # `limits` has already held each door to its own, smaller figure
DATA_UPLOAD_MAX_NUMBER_FIELDS = 200

PUBLIC_HOST = urlsplit(PUBLIC_URL).netloc

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"fields": {"()": "supportvoice.logs.FieldsFormatter"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "fields"}},
    "root": {"handlers": ["console"], "level": "INFO"},
    "loggers": {
        "django": {"handlers": [], "propagate": True},
        "django.server": {"handlers": [], "propagate": True},
        "picows": {"level": "WARNING"},  # two lines of addresses and buffer sizes a call
    },
}
