// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The programs that only count (lib/count.bpf.h). Every packet goes on unchanged with TC_ACT_UNSPEC, which leaves
 * the verdict to the programs of other owners behind this one.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#include "kvsteer/abi.h"
#include "lib/count.bpf.h"

SEC("tc")
int kvs_pod_egress(struct __sk_buff *skb)
{
	struct segment s = {};

	count_egress(skb, &s, segment_read(skb, &s));
	return TC_ACT_UNSPEC;
}

SEC("tc")
int kvs_pod_ingress(struct __sk_buff *skb)
{
	struct segment s = {};

	count_ingress(skb, &s, segment_read(skb, &s));
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
