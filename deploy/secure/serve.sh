#!/bin/sh
# Runs a store of compose.secure.yaml, encrypted: `serve.sh postgres|redis|nats|etcd`. Certificate, key and what holds its
# password are copied to /tls, where the store's own user may read them and nobody else may.
set -eu
umask 077
store=$1
mkdir -p /tls
cp /certs/ca.pem "/certs/$store.pem" "/certs/$store.key" /tls/

case $store in
postgres)
    # By its socket and its loopback only who is in the container comes, as the health check does; from elsewhere who shows a
    # certificate and knows the password.
    cat >/tls/pg_hba.conf <<'HBA'
local all all trust
hostnossl all all 127.0.0.1/32 trust
hostssl all all all scram-sha-256 clientcert=verify-ca
HBA
    chown -R postgres /tls
    exec docker-entrypoint.sh postgres -c ssl=on -c ssl_ca_file=/tls/ca.pem -c ssl_cert_file=/tls/postgres.pem \
        -c ssl_key_file=/tls/postgres.key -c hba_file=/tls/pg_hba.conf
    ;;
redis)
    cat >/tls/redis.conf <<CONF
port 0
tls-port 6379
tls-ca-cert-file /tls/ca.pem
tls-cert-file /tls/redis.pem
tls-key-file /tls/redis.key
tls-auth-clients yes
requirepass $PASSWORD
save ""
appendonly no
CONF
    chown -R redis /tls
    exec docker-entrypoint.sh redis-server /tls/redis.conf
    ;;
nats)
    cat >/tls/nats.conf <<CONF
port: 4222
http: "127.0.0.1:8222"
jetstream { store_dir: "/tmp/jetstream" }
tls { ca_file: "/tls/ca.pem", cert_file: "/tls/nats.pem", key_file: "/tls/nats.key", verify: true }
authorization { user: "sluice", password: "$PASSWORD" }
CONF
    exec nats-server --config /tls/nats.conf
    ;;
etcd)
    # ETCDCTL_* of the environment say whom to ask, and show the certificate.
    users() {
        until etcdctl endpoint health >/dev/null 2>&1; do sleep 1; done
        etcdctl get /sluice/ >/dev/null 2>&1 || return 0 # it asks who comes already
        etcdctl role add sluice
        etcdctl role grant-permission sluice readwrite /sluice/ --prefix=true
        etcdctl user add "sluice:$PASSWORD"
        etcdctl user grant-role sluice sluice
        etcdctl role add root
        etcdctl user add "root:$ROOT_PASSWORD"
        etcdctl user grant-role root root
        etcdctl auth enable
    }
    users >&2 &
    exec etcd --data-dir=/tmp/etcd --auto-compaction-retention=1h --client-cert-auth --trusted-ca-file=/tls/ca.pem \
        --cert-file=/tls/etcd.pem --key-file=/tls/etcd.key --listen-client-urls=https://0.0.0.0:2379 \
        --advertise-client-urls=https://etcd:2379
    ;;
esac
