/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * Counts what crosses this host's devices to and from each pod: bytes, packets, connections.
 *
 *   egress   destination is a pod → to_pod
 *   ingress  source is a pod      → from_pod
 *
 * so on a device that carries both legs, lo included, each packet counts once. A pod is an address and port that user
 * space has put into kvs_pods; nothing is added here.
 *
 * The per-CPU entries have one writer each: TC runs with bottom halves off, so no atomics are needed.
 */
#ifndef KVS_LIB_COUNT_BPF_H
#define KVS_LIB_COUNT_BPF_H

#include "lib/segment.bpf.h"
#include "maps.bpf.h"

static __always_inline void flow_add(struct kvs_flow_counts *c, struct __sk_buff *skb, const struct segment *s)
{
	c->bytes += s->payload;
	c->packets += skb->gso_segs > 1 ? skb->gso_segs : 1;
	if (s->flags & TCP_FLAG_SYN)
		c->connections++;
}

static __always_inline void verdict_add(struct kvs_verdict_counts *c, enum kvs_verdict v)
{
	switch (v) {
#define X(NAME, name)      \
	case KVS_##NAME:   \
		c->name++; \
		break;
		KVS_VERDICTS(X)
#undef X
	case KVS_VERDICTS_N:
		break;
	}
}

static __always_inline void count_device_egress(struct __sk_buff *skb, enum kvs_verdict v)
{
	__u32 ifindex = skb->ifindex;
	struct kvs_device_counts *dev = bpf_map_lookup_elem(&kvs_devices, &ifindex);

	if (dev)
		verdict_add(&dev->egress, v);
}

/* What is sent to a pod past egress: a bare segment. */
static __always_inline void count_ack_to_pod(const struct kvs_pod_key *key)
{
	struct kvs_pod_counts *pod = bpf_map_lookup_elem(&kvs_pods, key);

	if (pod)
		pod->to_pod.packets++;
}

/* A segment as segment_read left it, with its verdict. */
static __always_inline void count_egress(struct __sk_buff *skb, const struct segment *s, enum kvs_verdict v)
{
	struct kvs_pod_counts *pod;

	if (v == KVS_COUNTED) {
		pod = bpf_map_lookup_elem(&kvs_pods, &s->dst);
		if (pod)
			flow_add(&pod->to_pod, skb, s);
		else
			v = KVS_NOT_POD;
	}
	count_device_egress(skb, v);
}

static __always_inline void count_ingress(struct __sk_buff *skb, const struct segment *s, enum kvs_verdict v)
{
	struct kvs_device_counts *dev;
	struct kvs_pod_counts *pod;
	__u32 ifindex = skb->ifindex;

	if (v == KVS_COUNTED) {
		pod = bpf_map_lookup_elem(&kvs_pods, &s->src);
		if (pod)
			flow_add(&pod->from_pod, skb, s);
		else
			v = KVS_NOT_POD;
	}
	dev = bpf_map_lookup_elem(&kvs_devices, &ifindex);
	if (dev)
		verdict_add(&dev->ingress, v);
}

#endif
