/* SPDX-License-Identifier: Apache-2.0
 * Loses IP packets of a device, in both directions. What is lost at egress is redirected to a device that does not
 * exist: dropped there, the sender's TCP would take it for congestion of its own host, and nothing would be missing on
 * the wire. The program is so small that it is written as it is loaded; bpf/ would have to be built for it.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define INSN(c, d, s, o, i) ((struct bpf_insn){ .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) })

static int attach(int ifindex, enum bpf_tc_attach_point at, int ppm)
{
	bool out = at == BPF_TC_EGRESS;
	const struct bpf_insn prog[] = {
		INSN(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_2, BPF_REG_1, offsetof(struct __sk_buff, protocol), 0),
		INSN(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_2, 0, 7, htons(ETH_P_IP)),
		INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_get_prandom_u32),
		INSN(BPF_ALU | BPF_MOD | BPF_K, BPF_REG_0, 0, 0, 1000000),
		INSN(BPF_JMP | BPF_JGE | BPF_K, BPF_REG_0, 0, 4, ppm),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_1, 0, 0, 0x7fffffff),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, 0),
		out ? INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect)
		    : INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, TC_ACT_SHOT),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, TC_ACT_UNSPEC),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = at);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 1, .priority = 1, .flags = BPF_TC_F_REPLACE);

	opts.prog_fd =
		bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "kvbench_loss", "GPL", prog, sizeof(prog) / sizeof(*prog), NULL);
	return opts.prog_fd < 0 ? opts.prog_fd : bpf_tc_attach(&hook, &opts);
}

int loss_main(int argc, char **argv)
{
	int ifindex = argc == 3 ? (int)if_nametoindex(argv[2]) : 0, ppm = argc == 3 ? atoi(argv[1]) : 0, r;
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);

	if (!ifindex) {
		fprintf(stderr, "usage: kvbench loss PARTS_OF_A_MILLION DEVICE; 0 ends it\n");
		return 2;
	}
	if (!ppm)
		return bpf_tc_hook_destroy(&hook) ? 1 : 0;
	r = bpf_tc_hook_create(&hook);
	if (r && r != -EEXIST)
		goto failed;
	r = attach(ifindex, BPF_TC_INGRESS, ppm);
	r = r ? r : attach(ifindex, BPF_TC_EGRESS, ppm);
	if (!r)
		return 0;
failed:
	fprintf(stderr, "kvbench: loss on %s: %s\n", argv[2], strerror(-r));
	return 1;
}
