//! nginx as a pod: a fixed answer, from one process.

use std::path::Path;

use crate::error::{Error, Result};

/// Writes the configuration of a pod's server, which listens there (`PORT` or `ADDRESS:PORT`), and
/// writes a line for each request to standard output where it is to `log`.
pub(crate) fn write(path: &Path, name: &str, listen: &str, log: bool) -> Result<()> {
    let base = path.with_extension("");
    let text = format!(
        "daemon off;
master_process off;
pid {}.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
{}    server {{
        listen {listen} backlog=4096;
        location / {{
            default_type text/plain;
            add_header x-pod {name};
            return 200 \"{name}\\n\";
        }}
    }}
}}
",
        base.display(),
        http(&base, log),
    );
    std::fs::write(path, text).map_err(Error::io(path.display().to_string()))
}

/// What is common to servers of HTTP. Nothing of the machine's own nginx is read or written: no
/// logs, and no directories for what requests bring.
pub(crate) fn http(base: &Path, log: bool) -> String {
    let log = if log { "/dev/stdout lab" } else { "off" };
    let base = base.display();
    format!(
        "    log_format lab '$remote_addr \"$request\" $status';
    access_log {log};
    client_body_temp_path {base}.body;
    proxy_temp_path {base}.proxy;
    fastcgi_temp_path {base}.fastcgi;
    uwsgi_temp_path {base}.uwsgi;
    scgi_temp_path {base}.scgi;
    # A connection that a benchmark keeps is not to end before the benchmark does.
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
"
    )
}
