# etcd with a shell, which serve.sh needs: the public image has none, and users can be made only while etcd runs.
FROM quay.io/coreos/etcd:v3.6.6 AS etcd
FROM redis:8-alpine
COPY --from=etcd /usr/local/bin/etcd /usr/local/bin/etcdctl /usr/local/bin/
WORKDIR /
ENTRYPOINT []
