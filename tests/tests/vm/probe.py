"""Asks for a URL again and again, a connection for each time, and writes a line for each
request: when it ended, in seconds, and who answered, or `!` and why nobody did.

probe.py URL SECONDS COUNT PAUSE: every PAUSE seconds, until COUNT are done (0: until SIGTERM)
"""

import signal
import sys
import time
import urllib.request

url, bound, count, pause = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
number = 0
while count == 0 or number < count:
    number += 1
    started = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=bound) as answer:
            what = answer.read().decode().strip()
    except OSError as error:
        what = f"! {error}"
    print(f"{time.monotonic():.3f} {what}", flush=True)
    time.sleep(max(0.0, started + pause - time.monotonic()))
