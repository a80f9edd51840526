// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * For tests alone, never part of the product: loses, duplicates and delays TCP segments that enter a device, before the
 * programs under test see them. At ingress, because a loss at the sender's own egress is local congestion to its TCP
 * and makes no gap. A delayed segment leaves by a veth pair to user space, which keeps it a while and sends it back;
 * the pair's program then lets it enter its device once more.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define PASS_MARK 0x1a9a0000

volatile __u32 loss, dup, late; /* of a million */
volatile __u32 loop_out, home;	/* devices: of the veth pair, and the one that is impaired */

__u64 lost, duplicated, delayed;

static __always_inline bool is_tcp(struct __sk_buff *skb)
{
	__u8 proto = 0;
	bool v6 = skb->protocol == 0xdd86;

	return (v6 || skb->protocol == 0x0008) &&
	       !bpf_skb_load_bytes_relative(skb, v6 ? 6 : 9, &proto, 1, BPF_HDR_START_NET) &&
	       (proto == IPPROTO_TCP || (v6 && !proto));
}

SEC("tc")
int impair(struct __sk_buff *skb)
{
	if (skb->mark == PASS_MARK) {
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	if (skb->mark || !is_tcp(skb))
		return TC_ACT_UNSPEC;
	if (bpf_get_prandom_u32() % 1000000 < loss) {
		__sync_fetch_and_add(&lost, 1);
		return TC_ACT_SHOT;
	}
	if (bpf_get_prandom_u32() % 1000000 < dup) {
		__sync_fetch_and_add(&duplicated, 1);
		skb->mark = PASS_MARK;
		bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
		skb->mark = 0;
	}
	if (loop_out && bpf_get_prandom_u32() % 1000000 < late) {
		__sync_fetch_and_add(&delayed, 1);
		return bpf_redirect(loop_out, 0);
	}
	return TC_ACT_UNSPEC;
}

SEC("tc")
int loop(struct __sk_buff *skb)
{
	if (!is_tcp(skb))
		return TC_ACT_UNSPEC;
	skb->mark = PASS_MARK;
	return bpf_redirect(home, BPF_F_INGRESS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
