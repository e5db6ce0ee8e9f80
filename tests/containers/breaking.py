"""Tries in a running container what an attacker inside could change or become.

Tried, not read from compose.yaml: files are written, privileges looked up in the kernel.
"""

from tests.containers.stack import ComposeStack, ContainerError

# From within: what must fail, and the kernel's status of the first process.
_TRIED = """
w() { "$@" 2>/dev/null && echo "could: $*"; }
w touch /etc/x; w touch /x; w touch /usr/bin/x; w touch /usr/local/bin/x; w touch /opt/x
w mkdir /home/x; w mkdir /var/x; w chown 0 /tmp; w mount -t tmpfs none /mnt
[ "$(id -u)" = 0 ] && echo "is root"
status=/proc/1/status
grep -q '^CapEff:.0*$' $status || echo "has capabilities: $(grep ^CapEff $status)"
grep -q '^NoNewPrivs:.1' $status || echo "may gain privileges"
dd if=/dev/zero of=/tmp/much bs=1048576 count=300 2>/dev/null && echo "fills memory by /tmp"
rm -f /tmp/much
true
"""
_MOST_PIDS = 1000


def ways_out(stack: ComposeStack, service: str) -> list[str]:
    """Return what could be done in the container of ``service`` that must not be."""
    try:
        found = stack.exec(service, "sh", "-c", _TRIED).splitlines()
    except ContainerError as error:
        return [f"could not be tried: {error}"]
    host = stack.inspect(service)["HostConfig"]
    if not 0 < (host["PidsLimit"] or 0) <= _MOST_PIDS:
        found.append(f"may start {host['PidsLimit']} processes")
    if not host["Memory"] or not host["NanoCpus"]:
        found.append("has no limit of memory or of CPUs")
    return found
