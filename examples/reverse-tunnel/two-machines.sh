#!/bin/sh
# The example on two machines: "outside" has the clients and the gateway, "inside" the service and its connector. Each is
# a network namespace; a cable joins them. Needs unshare and nsenter (util-linux), ip (iproute2), curl and sluice (or
# SLUICE, where it is). Ends with 77 where this user may make no namespaces.
set -eu
sluice=${SLUICE:-sluice}
here=$(cd "$(dirname "$0")" && pwd)
if [ "${1-}" != outside ]; then
    unshare --user --map-root-user --net true 2>/dev/null || { echo "no namespaces for this user"; exit 77; }
    # Outside is this script once more, in a namespace of its own.
    exec unshare --user --map-root-user --net "$0" outside
fi

started=
trap 'kill -KILL $started 2>/dev/null || true' EXIT
# Not through a function: what is killed has to be the program itself.
start() {
    "$@" >&2 &
    started="$started $!"
}
patiently() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { echo "gave up: $*"; exit 1; }
        sleep 0.1
    done
}
apart() { [ "$(readlink "/proc/$machine/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }

start unshare --net sleep 300
machine=$!
inside="nsenter --target $machine --net"
patiently apart
ip link add wan type veth peer name lan netns "$machine"
ip link set lo up
ip addr add 10.0.0.1/24 dev wan
ip link set wan up
$inside ip link set lo up
$inside ip addr add 10.0.0.2/24 dev lan
$inside ip link set lan up

start env TUNNELS=10.0.0.1 "$sluice" run "$here/sluice.toml"
start $inside "$sluice" run "$here/../origins/sluice.toml"
start $inside env GATEWAY=10.0.0.1 "$sluice" connect "$here/connector.toml"
patiently $inside curl -sf http://127.0.0.1:9901/health

echo "through the tunnel: $(curl -s http://127.0.0.1:8080/orders/1)"
for address in 10.0.0.2 127.0.0.1; do
    if curl -s --max-time 2 "http://$address:9001/orders/1"; then
        echo "the service is reached directly"
        exit 1
    fi
    echo "directly at $address:9001: nothing answers"
done
