"""A cluster on one Linux machine, to try the real thing on.

Every machine of it is a set of namespaces: an address, a process table, a host name, a hosts file, a /tmp, a /dev/shm
and a disk of its own. The machines share nothing but the network, so what works only because two workers see one
folder fails here as it would on a real cluster.
"""
