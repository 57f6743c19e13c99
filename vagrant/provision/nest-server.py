#!/usr/bin/env python3
"""Answers every GET with this machine's name: nest-server ADDRESS PORT"""

import http.server
import socket
import sys


class Who(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """Answers."""
        body = (socket.gethostname() + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing: a line for each request would fill the journal."""


address, port = sys.argv[1], int(sys.argv[2])
http.server.ThreadingHTTPServer((address, port), Who).serve_forever()
