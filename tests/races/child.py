"""One of the two processes of `tests.races.pair`: reads a job a line, does it at the moment it is told, says what came of it."""

from __future__ import annotations

import json
import sys
import time
import traceback

import django


def main() -> None:
    django.setup()
    from django.db import connections  # only after the set-up

    from calls import publisher
    from tests.builders import QuietPublisher
    from tests.races.jobs import JOBS

    publisher.install(QuietPublisher())
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        order = json.loads(line)
        given: list[object] = []
        answer: dict[str, object] = {"given": given}
        try:
            for number, arguments in enumerate(order["each"]):
                begin = order["at"] + number * order["gap_s"] + arguments.pop("after_s", 0.0)
                while (left := begin - time.monotonic()) > 0:  # the last millisecond is not slept: both must begin together
                    time.sleep(max(0.0, left - 0.001))
                given.append(JOBS[order["job"]](**arguments))
        except Exception:  # whatever it is, the test is told
            answer = {"problem": traceback.format_exc()}
        finally:
            connections.close_all()
        print(json.dumps(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
