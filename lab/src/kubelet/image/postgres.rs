//! PostgreSQL as a pod: the machine's, with a database of its own, which goes with the pod.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use crate::error::{Error, Result};

/// Where Debian has its versions.
const VERSIONS: &str = "/usr/lib/postgresql";
/// Makes the database in `$1` where there is none yet, then serves it at `$2:$3`; by what the
/// image's variables say. The server refuses to run as root.
const SCRIPT: &str = r#"
data=$1 address=$2 port=$3
run() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
if [ ! -s "$data/PG_VERSION" ]; then
    install -d -o postgres -g postgres -m 0700 "$data"
    install -o postgres -g postgres -m 0600 /dev/null "$data.password"
    printf %s "${POSTGRES_PASSWORD:?is to be set}" >"$data.password"
    run initdb -D "$data" -U "${POSTGRES_USER:=postgres}" --pwfile="$data.password" \
        --auth=scram-sha-256 --no-sync
    echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
    [ -z "$POSTGRES_DB" ] || echo "CREATE DATABASE \"$POSTGRES_DB\"" |
        run postgres --single -D "$data" postgres
fi
exec setpriv --reuid=postgres --regid=postgres --clear-groups \
    postgres -D "$data" -c listen_addresses="$address" -c port="$port" \
    -c unix_socket_directories= -c fsync=off -c log_connections=on
"#;

/// A command that serves there; its files begin with `base`.
pub(super) fn command(
    inside: impl FnOnce(&str) -> Command,
    address: Ipv4Addr,
    port: u16,
    base: &Path,
) -> Result<Command> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = inside("sh");
    command
        .args(["-ec", SCRIPT, "sh"])
        .arg(base.with_extension("data"))
        .args([address.to_string(), port.to_string()])
        .env("PATH", format!("{}:{path}", programs()?.display()))
        // The locales of the machine are its own.
        .env("LC_ALL", "C.UTF-8");
    Ok(command)
}

/// Where the programs of the newest version are.
fn programs() -> Result<PathBuf> {
    let failed = || Error::io(format!("{VERSIONS} (`apt-get install postgresql`)"));
    let mut versions = Vec::new();
    for entry in fs::read_dir(VERSIONS).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        let number = name.to_str().and_then(|it| it.parse::<u32>().ok());
        versions.extend(number);
    }
    let newest = versions.into_iter().max();
    let newest = newest.ok_or_else(|| failed()(std::io::ErrorKind::NotFound.into()))?;
    Ok(Path::new(VERSIONS).join(newest.to_string()).join("bin"))
}
