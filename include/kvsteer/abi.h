/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * What BPF programs and user space share: keys and values of the pinned maps. Nothing else is shared.
 *
 * Pins lie under /sys/fs/bpf/kvsteer/v<KVS_ABI>/. A change that an old program or an old reader would misread raises
 * KVS_ABI, and with it the folder; the folder of the old version is left to the programs that use it. Fixed-width
 * members, explicit padding named pad, no pointers, no bool. docs/abi.md explains each field to readers of dumps.
 */
#ifndef KVSTEER_ABI_H
#define KVSTEER_ABI_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#ifndef KVS_ABI
#define KVS_ABI 2
#endif

#define KVS_MAX_PODS	4096
#define KVS_MAX_DEVICES 256

/* What became of a packet that a program saw. The names are the metrics' labels as well; numbers are never reused. */
#define KVS_VERDICTS(X)       \
	X(COUNTED, counted)   \
	X(NOT_POD, not_pod)   \
	X(NOT_TCP, not_tcp)   \
	X(NOT_IP, not_ip)     \
	X(FRAGMENT, fragment) \
	X(MALFORMED, malformed)

enum kvs_verdict {
#define X(NAME, name) KVS_##NAME,
	KVS_VERDICTS(X)
#undef X
		KVS_VERDICTS_N
};

/* An IPv6 address in network order; an IPv4 address as ::ffff:a.b.c.d. */
struct kvs_addr {
	__u8 b[16];
};

/* kvs_pods: the pods that user space put there, and what crossed this host's devices to and from each. */
struct kvs_pod_key {
	struct kvs_addr addr;
	__u16 port; /* host order, as people read it */
	__u16 pad;
};

struct kvs_flow_counts {
	__u64 bytes;	   /* TCP payload */
	__u64 packets;	   /* segments; a GSO super-packet counts as its segments */
	__u64 connections; /* segments with SYN: to the pod tried, from the pod answered */
};

struct kvs_pod_counts {
	struct kvs_flow_counts to_pod;
	struct kvs_flow_counts from_pod;
};

/* kvs_devices: by interface index. A program that is attached but does not run, because another one ends the chain
 * before it, is seen here: its counts stand still. */
struct kvs_verdict_counts {
#define X(NAME, name) __u64 name;
	KVS_VERDICTS(X)
#undef X
};

struct kvs_device_counts {
	struct kvs_verdict_counts ingress;
	struct kvs_verdict_counts egress;
};

/* kvs_meta: one entry, who made these pins. */
struct kvs_meta {
	__u32 abi;
	__u32 pad;
	__u64 made_at; /* seconds since the epoch */
	char version[48];
};

_Static_assert(sizeof(struct kvs_pod_key) == 20, "kvs_pod_key");
_Static_assert(__builtin_offsetof(struct kvs_pod_key, port) == 16, "kvs_pod_key.port");
_Static_assert(sizeof(struct kvs_pod_counts) == 48, "kvs_pod_counts");
_Static_assert(sizeof(struct kvs_verdict_counts) == 8 * KVS_VERDICTS_N, "kvs_verdict_counts");
_Static_assert(sizeof(struct kvs_device_counts) == 96, "kvs_device_counts");
_Static_assert(sizeof(struct kvs_meta) == 64, "kvs_meta");

#endif
