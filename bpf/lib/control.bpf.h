/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 * What user space calls: SEC("syscall") programs. They may be interrupted by the TC programs, so all about a splice
 * happens under its lock. Contexts and results: kvsteer/abi_splice.h.
 */
#ifndef KVS_LIB_CONTROL_BPF_H
#define KVS_LIB_CONTROL_BPF_H

#include "lib/syn.bpf.h"
#include "lib/walk.bpf.h"

#define ENOENT	     2
#define EAGAIN	     11
#define EBUSY	     16
#define EEXIST	     17
#define ENODEV	     19
#define EPIPE	     32
#define ERANGE	     34
#define EPROTO	     71
#define EOPNOTSUPP   95
#define EAFNOSUPPORT 97
#define EINPROGRESS  115

SEC("syscall")
int kvs_conn_add(struct kvs_conn_add_args *ctx)
{
	struct kvs_tuple t = ctx->tuple;
	struct kvs_syn *syn = bpf_map_lookup_elem(&kvs_syns, &t);
	struct kvs_conn conn = { .born = bpf_ktime_get_ns() };
	struct kvs_half *h = &conn.half;
	int r;

	if (!syn || !syn->local || !syn->peer)
		return -ENOENT;
	if (syn->side != ctx->side)
		return -EINVAL;
	if (syn->odd)
		return syn->odd == KVS_SYN_NO_ETHERNET ? -ENODEV : -EOPNOTSUPP;
	conn.side = syn->side;
	h->base = (conn.side == KVS_SIDE_C ? syn->iss : syn->irs) + 1;
	h->snd_end = h->snd_una = syn->iss + 1;
	h->rcv_nxt = h->del = syn->irs + 1;
	h->ifindex = syn->ifindex;
	h->mss = syn->mss;
	if (syn->ws_loc != NO_SCALE && syn->ws_rem != NO_SCALE) {
		h->ws_loc = syn->ws_loc;
		h->ws_rem = syn->ws_rem;
	}
	r = bpf_map_update_elem(&kvs_conns, &t, &conn, BPF_NOEXIST);
	bpf_map_delete_elem(&kvs_syns, &t);
	if (r)
		return r;
	ctx->ifindex = h->ifindex;
	ctx->mss = h->mss;
	ctx->ws_rem = h->ws_rem;
	ctx->ws_loc = h->ws_loc;
	ctx->born = conn.born;
	return 0;
}

SEC("syscall")
int kvs_conn_close(struct kvs_conn_close_args *ctx)
{
	struct kvs_tuple t = ctx->tuple;
	struct kvs_conn *conn = bpf_map_lookup_elem(&kvs_conns, &t);

	if (!conn || conn->born != ctx->born)
		return -ENOENT;
	if (conn_is_bound(conn))
		return -EBUSY;
	if (!ctx->gc && conn->half.off) {
		if (!conn->closed_at)
			conn->closed_at = bpf_ktime_get_ns();
		return -EINPROGRESS;
	}
	return bpf_map_delete_elem(&kvs_conns, &t);
}

static __always_inline bool is_v4(const struct kvs_addr *a)
{
	const __u32 *w = (const void *)a->b;

	return !w[0] && !w[1] && w[2] == bpf_htonl(0xffff);
}

/* From here on the splice's copy counts. Packets may be on their way: none is counted in the old one any more. */
static __always_inline void half_take(struct kvs_conn *conn, struct kvs_half *to, __u32 id, __u32 gen)
{
	bpf_spin_lock(&conn->lock);
	*to = conn->half;
	conn->gen = gen;
	conn->splice = id;
	bpf_spin_unlock(&conn->lock);
}

SEC("syscall")
int kvs_bind(struct kvs_bind_args *ctx)
{
	struct kvs_tuple tc = ctx->c, tu = ctx->u;
	struct kvs_conn *c = bpf_map_lookup_elem(&kvs_conns, &tc), *u = bpf_map_lookup_elem(&kvs_conns, &tu);
	__u64 now = bpf_ktime_get_ns();
	__u32 id = ctx->splice;
	struct kvs_splice *sp;

	if (!c || !u)
		return -ENOENT;
	if (c->side != KVS_SIDE_C || u->side != KVS_SIDE_U || !ctx->gen)
		return -EINVAL;
	if (is_v4(&tc.raddr) != is_v4(&tu.raddr))
		return -EAFNOSUPPORT;
	if (c->splice || u->splice)
		return -EBUSY;
	sp = id ? bpf_map_lookup_elem(&kvs_splices, &id) : NULL;
	if (!sp)
		return -ERANGE;
	bpf_spin_lock(&sp->lock);
	if (sp->state != KVS_FREE) {
		bpf_spin_unlock(&sp->lock);
		return -EBUSY;
	}
	__builtin_memset((char *)sp + sizeof(sp->lock), 0, sizeof(*sp) - sizeof(sp->lock));
	sp->gen = ctx->gen;
	sp->c_tuple = tc;
	sp->u_tuple = tu;
	sp->cookie = ctx->cookie;
	sp->owner = ctx->owner;
	sp->bound_at = ctx->dispatched_at ? ctx->dispatched_at : now;
	sp->state = KVS_RELAY;
	bpf_spin_unlock(&sp->lock);
	half_take(c, &sp->c, id, ctx->gen);
	half_take(u, &sp->u, id, ctx->gen);
	return 0;
}

static __always_inline bool arm_fits(const struct kvs_arm_args *ctx)
{
	if (ctx->framing == KVS_LENGTH)
		return ctx->left > 0;
	if (ctx->framing == KVS_CHUNKED)
		return ctx->walk < KVS_WALK_END && (ctx->walk != KVS_WALK_DATA || ctx->left) && !(ctx->left >> 63);
	return ctx->framing == KVS_UNTIL_CLOSE;
}

/* Under the lock. */
static __always_inline enum kvs_arm_result arm_check(const struct kvs_splice *sp, __u32 gen, __u32 y0, __u32 c_split)
{
	if (sp->state == KVS_FREE || sp->gen != gen)
		return KVS_ARM_UNBOUND;
	if (sp->state != KVS_RELAY || (sp->flags & KVS_F_CLOSING))
		return KVS_ARM_STATE;
	if (sp->flags & (KVS_F_POD_FIN | KVS_F_POD_RST))
		return KVS_ARM_POD_FIN;
	if (!sp->c.seen || !sp->u.seen)
		return KVS_ARM_UNSEEN;
	if (D(sp->u.del, y0) > 0)
		return KVS_ARM_POD_AHEAD;
	if (D(c_split, sp->c.snd_end) > 0)
		return KVS_ARM_CLIENT_BEHIND;
	return sp->u.del == y0 && sp->c.snd_end == c_split ? KVS_ARM_OK : KVS_ARM_MISCOUNT;
}

SEC("syscall")
int kvs_arm(struct kvs_arm_args *ctx)
{
	static const int error[KVS_ARM_N] = {
		[KVS_ARM_UNBOUND] = -ENOENT,  [KVS_ARM_STATE] = -EBUSY,		 [KVS_ARM_POD_AHEAD] = -EAGAIN,
		[KVS_ARM_MISCOUNT] = -EPROTO, [KVS_ARM_CLIENT_BEHIND] = -EAGAIN, [KVS_ARM_UNSEEN] = -EAGAIN,
		[KVS_ARM_FRAMING] = -EINVAL,  [KVS_ARM_POD_FIN] = -EPIPE,
	};
	struct kvs_pod_key pod = {};
	struct kvs_pod_times *times;
	enum kvs_arm_result result;
	__u32 id = ctx->splice, y0, c_split;
	__u64 now = bpf_ktime_get_ns();
	struct kvs_splice *sp = id ? bpf_map_lookup_elem(&kvs_splices, &id) : NULL;
	__u64 ttft = 0;

	ctx->state = KVS_FREE;
	ctx->result = !sp ? KVS_ARM_UNBOUND : KVS_ARM_FRAMING;
	if (!sp || !arm_fits(ctx))
		return !sp ? -ENOENT : -EINVAL;
	bpf_spin_lock(&sp->lock);
	y0 = sp->u.base + (__u32)ctx->u_read + sp->u.off;
	c_split = sp->c.base + (__u32)ctx->c_written + sp->c.off;
	result = arm_check(sp, ctx->gen, y0, c_split);
	if (result == KVS_ARM_OK) {
		sp->state = KVS_ARMED;
		sp->y0 = y0;
		sp->c_split = c_split;
		sp->framing = ctx->framing;
		sp->walk = ctx->walk;
		sp->left = ctx->left;
		sp->cap = ctx->cap ? ctx->cap : ctx->framing == KVS_CHUNKED ? KVS_STORE_BYTES : 0;
		if (!sp->first_at && !ctx->first_at) {
			sp->flags |= KVS_F_FIRST;
		} else if (!sp->first_at) {
			sp->first_at = ctx->first_at;
			ttft = sp->first_at - sp->bound_at;
		}
		if (!sp->last_at && !(sp->flags & KVS_F_FIRST))
			sp->last_at = ctx->last_at ? ctx->last_at : now;
		pod.addr = sp->u_tuple.raddr;
		pod.port = sp->u_tuple.rport;
	}
	if (result != KVS_ARM_UNBOUND)
		ctx->state = sp->state;
	bpf_spin_unlock(&sp->lock);
	ctx->result = result;
	times = ttft ? bpf_map_lookup_elem(&kvs_pod_times, &pod) : NULL;
	if (times)
		times_add(&times->ttft, ttft);
	return result < KVS_ARM_N ? error[result] : 0;
}

SEC("syscall")
int kvs_closing(struct kvs_closing_args *ctx)
{
	__u32 id = ctx->splice;
	struct kvs_splice *sp = id ? bpf_map_lookup_elem(&kvs_splices, &id) : NULL;
	int r = -ENOENT;

	if (!sp)
		return r;
	bpf_spin_lock(&sp->lock);
	if (sp->state != KVS_FREE && sp->gen == ctx->gen) {
		ctx->state = sp->state;
		ctx->flags = sp->flags;
		sp->flags |= KVS_F_CLOSING;
		r = 0;
	}
	bpf_spin_unlock(&sp->lock);
	return r;
}

/* Both connections' numbers as they are from now on. What the sockets sent or got behind the end stays counted. */
static __always_inline void offsets_move(struct kvs_splice *sp)
{
	__u32 n = (sp->flags & KVS_F_END ? sp->u_end : sp->fwd_end) - sp->u_split;

	sp->c.off += n;
	sp->u.off += n;
	if (D(sp->c.snd_end, sp->c_split) <= 0)
		sp->c.snd_end = sp->c_split + n;
	if (D(sp->u.del, sp->u_split) <= 0)
		sp->u.del = sp->u_split + n;
	if (D(sp->u.rcv_nxt, sp->u_split) >= 0)
		sp->u.rcv_nxt += n;
}

static __always_inline void unbind_report(struct kvs_unbind_args *ctx, const struct kvs_splice *sp)
{
	ctx->state = sp->state;
	ctx->flags = sp->flags;
	ctx->bytes = sp->bytes;
	ctx->segments = sp->segments;
	ctx->chunks = sp->chunks;
	ctx->gap_max = sp->gap_max;
	ctx->first_at = sp->first_at;
	ctx->last_at = sp->last_at;
}

SEC("syscall")
int kvs_unbind(struct kvs_unbind_args *ctx)
{
	__u32 id = ctx->splice, store = 0;
	struct kvs_splice *sp = id ? bpf_map_lookup_elem(&kvs_splices, &id) : NULL;
	struct kvs_tuple tc, tu;
	struct kvs_conn *c, *u;
	int r = 0;

	if (!sp)
		return -ENOENT;
	/* They do not change as long as the generation does not, which is compared below. */
	tc = sp->c_tuple;
	tu = sp->u_tuple;
	c = bpf_map_lookup_elem(&kvs_conns, &tc);
	u = bpf_map_lookup_elem(&kvs_conns, &tu);
	bpf_spin_lock(&sp->lock);
	if (sp->state == KVS_FREE || sp->gen != ctx->gen) {
		r = -ENOENT;
	} else if ((sp->state == KVS_ACTIVE || sp->state == KVS_ENDED) && !(ctx->force & KVS_UNBIND_FORCE)) {
		r = -EBUSY;
	} else if (sp->users) {
		r = -EAGAIN;
	} else {
		unbind_report(ctx, sp);
		if (sp->state >= KVS_ACTIVE)
			offsets_move(sp);
		sp->c.owe = 0;
		/* The halves go back before the splice is free, so that no packet meets old offsets. */
		if (c && c->splice == id && c->gen == ctx->gen) {
			c->half = sp->c;
			c->splice = 0;
		}
		if (u && u->splice == id && u->gen == ctx->gen) {
			u->half = sp->u;
			u->splice = 0;
		}
		store = sp->store;
		sp->store = 0;
		sp->state = KVS_FREE;
	}
	bpf_spin_unlock(&sp->lock);
	store_push(store);
	return r;
}

#endif
