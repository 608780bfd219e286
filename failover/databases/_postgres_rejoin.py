"""Bringing an old primary back as a replica, on its own host: stop, rewind, point at the new primary, start.

Each script may be run again after it, or we, were killed at any line. What pg_rewind would destroy and a second try
needs, the member's own configuration and its own WAL since the fork, is kept beside the data directory until the
rewind is complete. (PostgreSQL manual, pg_rewind: "How It Works", and 26.2.2)

pg_rewind removes `standby.signal`, which its source has not, and whoever starts the server then has a second primary.
So PG_VERSION, which pg_rewind neither overwrites nor reads, holds no version from before the rewind until all is in
place again: no server starts meanwhile, and none needs the permissions that a container's entry point puts right.
"""

import re
import shlex
from dataclasses import dataclass
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from failover.clock import Clock
from failover.databases import _postgres_fence as fence
from failover.databases._postgres_host import BAR, CLEAN, Host, Look, said
from failover.errors import Failed

_OFF = """
touch "$data/standby.signal" && durable "$data/standby.signal" "$data" || exit
server; status=$?
if test $status -eq 3; then
  # PostgreSQL takes a process that was not reaped for a living one, and would not start beside it.
  test -z "$(left)" || exit 0
  memory=$(sed -n "7s/.* //p" "$data/postmaster.pid" 2>/dev/null)
  test -z "$memory" || ipcrm -m "$memory" 2>/dev/null
  rm -f "$data/postmaster.pid"
  exit
fi
test $status -eq 0 || { "$bin/pg_ctl" status -D "$data"; exit $status; }
"$bin/pg_ctl" stop -D "$data" -m fast -w -t __SECONDS__ 9>&- ||
  "$bin/pg_ctl" stop -D "$data" -m immediate -w -t __SECONDS__ 9>&-
"""
_BAR = """
version="$data/PG_VERSION"
bar() {
  cp -p "$version" "$version.failover" && echo '__BAR__' >"$version.failover" && durable "$version.failover" &&
    mv "$version.failover" "$version" && durable "$data"
}
unbar() {
  touch "$data/standby.signal" && durable "$data/standby.signal" "$data" || return
  grep -q '^__BAR__$' "$version" || return 0
  for file in "$data"/base/*/PG_VERSION; do test ! -s "$file" || break; done
  cp -p "$file" "$version.failover" && durable "$version.failover" &&
    mv "$version.failover" "$version" && durable "$data"
}
"""
_REWIND = """
keep="$data.failover"
rewind() {
  PGPASSWORD=__PASSWORD__ LC_ALL=C "$bin/pg_rewind" --target-pgdata="$data" --source-server=__SOURCE__ "$@" 2>&1 9>&-
}
socket=$(mktemp -d) || exit
mute="-c listen_addresses='' -c unix_socket_directories='$socket' -c primary_conninfo='' -c restore_command=''"
mute="$mute -c recovery_target_timeline=current -c hot_standby=on -c archive_mode=off -c logging_collector=off"
control() { LC_ALL=C "$bin/pg_controldata" -D "$data" | sed -n "s/^$1: *//p"; }
case $(control "Database cluster state") in
  "shut down"|"shut down in recovery") ;;
  *)
    unbar || exit
    "$bin/pg_ctl" start -D "$data" -w -t __SECONDS__ -l "$data/startup.log" -o "$mute" 9>&- &&
      "$bin/pg_ctl" stop -D "$data" -m fast -w -t __SECONDS__ 9>&- || { tail -n 3 "$data/startup.log"; exit 70; } ;;
esac
rm -rf "$socket"
if test -e "$keep/ready"; then
  rm -f "$data/backup_label"
  for file in "$keep"/wal/*; do test ! -e "$file" || cp -p "$file" "$data/pg_wal/" || exit; done
else
  rm -rf "$keep" && mkdir -m 700 "$keep" "$keep/wal" "$keep/conf" || exit
  for file in "$data"/*.conf; do test ! -e "$file" || cp -p "$file" "$keep/conf/" || exit; done
  trial=$(rewind --dry-run) || { echo "$trial"; rm -rf "$keep"; exit 71; }
  start=$(echo "$trial" | sed -n 's/.*last common checkpoint at \\([0-9A-F/]*\\) on timeline.*/\\1/p')
  if test -n "$start"; then
    size=$(control "Bytes per WAL segment")
    first=$(printf '%08X%08X' "0x${start%/*}" "$((0x${start#*/} / size))")
    for file in "$data"/pg_wal/????????????????????????; do
      name=${file##*/}; after=${name#????????}
      if test "$after" = "$first" || test "$after" \\> "$first"; then cp -p "$file" "$keep/wal/" || exit; fi
    done
  fi
  find "$keep" -exec sync {} + 2>/dev/null || sync
  : >"$keep/ready"
fi
bar || exit
# Whoever was faster than the bar is at work in it now, and there for all to see.
server; test $? -eq 3 && test -z "$(left)" || { echo "somebody has started its server meanwhile"; unbar; exit 72; }
rewind || exit 71
touch "$data/standby.signal" && durable "$data/standby.signal" "$data"
"""
_SETTINGS = """
keep="$data.failover"
for file in "$keep"/conf/*; do
  test ! -e "$file" || { cp -p "$file" "$data/failover.tmp" && mv "$data/failover.tmp" "$data/${file##*/}"; } || exit
done
touch "$data/standby.signal" || exit
"$bin/postgres" -D "$data" -C primary_conninfo 2>/dev/null || true
echo __END__
test ! -e "$data/postgresql.auto.conf" || cat "$data/postgresql.auto.conf"
"""
_START = """
printf %s __TEXT__ >"$data/postgresql.auto.conf.failover" || exit
chmod 600 "$data/postgresql.auto.conf.failover"
mv "$data/postgresql.auto.conf.failover" "$data/postgresql.auto.conf" && touch "$data/standby.signal" || exit
durable "$data"/*.conf "$data/standby.signal" "$data" && rm -rf "$data.failover" && unbar || exit
"$bin/pg_ctl" start -D "$data" -w -t __SECONDS__ -l "$data/startup.log" 9>&- ||
  { tail -n 4 "$data/startup.log" >&2; exit 1; }
"""
_END = "-- end of conninfo --"
_SETTING = re.compile(r"^\s*(\w+)\s*=?\s*'((?:[^']|'')*)'", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """The server to follow: how to reach it, without and with the password, and how its own replicas are told."""

    region: str
    options: dict[str, Any]
    password: str
    timeline: int
    conninfo: str
    """Its own `primary_conninfo`, from when it was a replica; may be empty."""


def turn_off(host: Host, seconds: float) -> Look:
    """Make sure that the server does not run, and would start as a standby. Raises Failed."""
    host.run(_fill(_OFF, seconds), 2 * seconds, lock=True)
    look = host.look(seconds)
    if look.running:
        raise Failed(f"it still runs: {look.problem or 'pg_ctl could not stop it'}", where=host.where)
    return look


def rejoin(host: Host, source: Source, clock: Clock, seconds: float) -> None:
    """Make the member follow `source` and start it. Raises Failed; can be repeated."""
    deadline = clock.monotonic() + seconds

    def left() -> float:
        return max(1.0, deadline - clock.monotonic())

    look = turn_off(host, left() / 3)
    if look.timeline > source.timeline:
        raise Failed(
            f"it is on timeline {look.timeline}, {source.region} only on {source.timeline}",
            where=host.where,
            next=f"find out which of the two holds the writes to keep; {source.region} may be the older one",
        )
    if look.timeline < source.timeline:
        _rewind(host, source, left())
    elif look.barred and look.state in CLEAN:
        raise Failed(
            f"its rewind to another server's history was cut off, and {source.region} does not have that history",
            where=host.where,
            next=_rebuild(host, source),
        )
    _, out, _ = host.run(_fill(_SETTINGS, 1).replace("__END__", shlex.quote(_END)), left(), lock=True)
    present, _, settings = out.partition(_END + "\n")
    text = rejoined(settings, conninfo(present.strip() or source.conninfo, source.options))
    host.run(_fill(_START, left()).replace("__TEXT__", shlex.quote(text)), left() + 1, lock=True)


def conninfo(present: str, options: dict[str, Any]) -> str:
    """`present`, a primary_conninfo, made to lead to the server of `options`; the rest of it stays."""
    kept = {key: value for key, value in conninfo_to_dict(present).items() if key not in ("hostaddr", "dbname")}
    return make_conninfo(**{"user": options["user"], **kept, "host": options["host"], "port": options["port"]})


def rejoined(settings: str, following: str) -> str:
    """The text of postgresql.auto.conf without a fence, and with `following` as primary_conninfo."""
    lines: list[str] = []
    for line in settings.splitlines():
        found = _SETTING.match(line)
        name, value = (found[1].lower(), _unquoted(found[2])) if found else ("", "")
        if name == "synchronous_standby_names":
            lines += [
                f"{key} = {_quoted(before)}" if before else "" for key, before in fence.reset(value) if key == name
            ] or [line]
        elif name not in ("default_transaction_read_only", "primary_conninfo"):
            lines.append(line)
    return "\n".join([*filter(None, lines), f"primary_conninfo = {_quoted(following)}", ""])


def _rewind(host: Host, source: Source, seconds: float) -> None:
    server = make_conninfo(**source.options, application_name="failover")
    script = _fill(_REWIND, seconds / 3)
    script = script.replace("__PASSWORD__", shlex.quote(source.password)).replace("__SOURCE__", shlex.quote(server))
    code, out, err = host.run(script, seconds, check=False, lock=True)
    if code:
        raise Failed(
            f"it could not be rewound to {source.region}'s history: {said(out + err)}",
            where=host.where,
            next=f"resume once that is mended; where WAL is missing, {_rebuild(host, source)}",
        )


def _rebuild(host: Host, source: Source) -> str:
    where = f"-h {source.options['host']} -p {source.options['port']} -U {source.options['user']}"
    return f"rebuild it: empty its data directory, then pg_basebackup -R -X stream {where} -D {host.data}"


def _fill(script: str, seconds: float) -> str:
    return (_BAR + script).replace("__BAR__", BAR).replace("__SECONDS__", str(max(1, int(seconds))))


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _unquoted(value: str) -> str:
    return value.replace("''", "'").replace("\\\\", "\\")
