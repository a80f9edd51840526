// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * For tests alone: deals the packets that enter a device out to all CPUs in turn (spread), and counts how the checksums
 * of those that enter are known (summed).
 */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define CPUS		    64
#define BPF_MAP_TYPE_CPUMAP 16
#define XDP_PASS	    2

struct xdp_md {
	__u32 data;
};

struct sk_buff___summed {
	__u8 ip_summed : 2;
} __attribute__((preserve_access_index));

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, CPUS);
	__type(key, __u32);
	__type(value, __u32); /* length of the queue */
} cpus SEC(".maps");

volatile __u32 ncpus;
__u32 turn;
__u64 sums[4];

void *bpf_cast_to_kern_ctx(void *obj) __ksym;

SEC("xdp")
int spread(struct xdp_md *ctx)
{
	__u32 cpu = __sync_fetch_and_add(&turn, 1) % (ncpus ? ncpus : 1);

	return bpf_redirect_map(&cpus, cpu, XDP_PASS);
}

SEC("tc")
int summed(struct __sk_buff *skb)
{
	struct sk_buff___summed *k = bpf_cast_to_kern_ctx(skb);
	__u8 how = BPF_CORE_READ_BITFIELD_PROBED(k, ip_summed);

	__sync_fetch_and_add(&sums[how & 3], 1);
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
