/* SPDX-License-Identifier: Apache-2.0
 * The carrier that is TC: one call of a SEC("syscall") program for each step, as kvsteer/abi_splice.h has them.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/time.h"
#include "datapath/splice_int.h"

#define SO_ORIGINAL_DST_ 80 /* of both families; the kernel's headers for it do not go with the C library's */
#define UNBIND_TRIES	 4
#define BIND_TRIES	 4

int splice_call(const struct splicer *sp, enum call c, void *args, size_t n)
{
	LIBBPF_OPTS(bpf_test_run_opts, o, .ctx_in = args, .ctx_size_in = (uint32_t)n);

	if (bpf_prog_test_run_opts(sp->call[c], &o) < 0)
		return -errno;
	return (int)o.retval;
}

int splice_read(const struct splicer *sp, uint32_t id, struct kvs_splice *ret)
{
	return bpf_map_lookup_elem_flags(sp->map[MAP_splices], &id, ret, BPF_F_LOCK) < 0 ? -errno : 0;
}

/* --- connections --- */

static int tuple_read(int fd, struct kvs_tuple *t)
{
	struct net_addr l = { .len = sizeof(l.v6) }, r = { .len = sizeof(r.v6) };
	struct kvs_pod_key k;

	if (getsockname(fd, &l.sa, &l.len) < 0 || getpeername(fd, &r.sa, &r.len) < 0)
		return -errno;
	key_from_addr(&k, &l);
	t->laddr = k.addr;
	t->lport = k.port;
	key_from_addr(&k, &r);
	t->raddr = k.addr;
	t->rport = k.port;
	return 0;
}

static bool is_v4(const struct kvs_addr *a)
{
	return IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)a->b);
}

static bool is_loopback(const struct kvs_tuple *t)
{
	return memcmp(&t->raddr, &t->laddr, sizeof(t->raddr)) == 0 ||
	       (is_v4(&t->raddr) ? t->raddr.b[12] == 127 : IN6_IS_ADDR_LOOPBACK((const struct in6_addr *)t->raddr.b));
}

/* Did the client dial another address than the socket's? Then TC, outside of the rewriting, knows another tuple. */
static bool is_dnat(struct splicer *sp, int fd, const struct kvs_tuple *t)
{
	struct net_addr was = { .len = sizeof(was.v6) };
	bool v4 = is_v4(&t->laddr);
	struct kvs_pod_key k;

	if (atomic_load_explicit(&sp->no_nat[!v4], memory_order_relaxed))
		return false;
	was.len = v4 ? sizeof(was.v4) : sizeof(was.v6);
	if (getsockopt(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, SO_ORIGINAL_DST_, &was.sa, &was.len) < 0) {
		if (errno == ENOPROTOOPT)
			atomic_store_explicit(&sp->no_nat[!v4], true, memory_order_relaxed);
		return false; /* ENOENT: not tracked */
	}
	key_from_addr(&k, &was);
	return k.port != t->lport || memcmp(&k.addr, &t->laddr, sizeof(k.addr)) != 0;
}

static enum carrier_why why_of_add(int r)
{
	switch (r) {
	case 0:
		return CARRIER_WHY_OK;
	case -ENOENT:
	case -EINVAL:
		return CARRIER_WHY_NO_HANDSHAKE;
	case -EOPNOTSUPP:
		return CARRIER_WHY_TIMESTAMPS;
	case -ENODEV:
		return CARRIER_WHY_NO_ETHERNET;
	case -EEXIST:
		return CARRIER_WHY_TUPLE;
	case -E2BIG:
	case -ENOSPC:
	case -ENOMEM:
		return CARRIER_WHY_MAP_FULL;
	default:
		return CARRIER_WHY_KERNEL;
	}
}

static void conn_close(struct splicer *sp, struct carrier_conn *conn)
{
	struct kvs_conn_close_args a = { .tuple = conn->tuple, .born = conn->born };

	splice_call(sp, CALL_conn_close, &a, sizeof(a)); /* gc.c sees to what has to stay */
	conn->carrier = CARRIER_RELAY;
}

/* Both ends are known: tell the kernel of the connection. */
static enum carrier_why conn_add(struct splicer *sp, struct carrier_conn *conn, enum kvs_side side)
{
	struct kvs_conn_add_args a = { .tuple = conn->tuple, .side = side };
	enum carrier_why why = why_of_add(splice_call(sp, CALL_conn_add, &a, sizeof(a)));

	if (why)
		return why;
	conn->carrier = CARRIER_TC;
	conn->born = a.born;
	conn->ifindex = a.ifindex;
	why = served_why(sp, a.ifindex);
	if (why)
		conn_close(sp, conn);
	return why;
}

static void tc_accepted(struct carrier_worker *w, struct splicer *sp, struct carrier_conn *conn, int fd)
{
	enum carrier_why why;
	socklen_t n = sizeof(int);
	int mss = 0;

	if (tuple_read(fd, &conn->tuple))
		why = CARRIER_WHY_KERNEL;
	else if (is_loopback(&conn->tuple))
		why = CARRIER_WHY_LOOPBACK;
	else if (is_dnat(sp, fd, &conn->tuple))
		why = CARRIER_WHY_DNAT;
	else
		why = conn_add(sp, conn, KVS_SIDE_C);
	if (why == CARRIER_WHY_NO_HANDSHAKE || why == CARRIER_WHY_NO_DEVICE)
		stranger_add(sp, &conn->tuple.raddr);
	if (!why && (getsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &mss, &n) < 0 || mss <= 0)) {
		conn_close(sp, conn);
		why = CARRIER_WHY_KERNEL;
	}
	conn->mss = (uint16_t)mss;
	conn->why = (uint8_t)why;
}

static void tc_dialing(struct carrier_worker *w, struct splicer *sp, struct carrier_conn *conn, int fd,
		       const struct carrier_conn *c)
{
	socklen_t n = sizeof(conn->born);
	uint32_t one = 1;
	int mss = c && !c->why ? c->mss : 0;

	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &conn->born, &n) < 0 ||
	    bpf_map_update_elem(sp->map[MAP_dials], &conn->born, &one, BPF_ANY) < 0) {
		conn->why = CARRIER_WHY_KERNEL;
		return;
	}
	if (mss)
		setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &mss, sizeof(mss));
	conn->dialing = 1;
}

static void dial_over(struct splicer *sp, struct carrier_conn *conn)
{
	bpf_map_delete_elem(sp->map[MAP_dials], &conn->born);
	conn->dialing = 0;
}

static void tc_connected(struct carrier_worker *w, struct splicer *sp, struct carrier_conn *conn, int fd)
{
	struct tcp_info ti = { 0 };
	socklen_t n = sizeof(ti);
	enum carrier_why why;

	dial_over(sp, conn);
	if (tuple_read(fd, &conn->tuple) || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &n) < 0)
		why = CARRIER_WHY_KERNEL;
	else if (is_loopback(&conn->tuple))
		why = CARRIER_WHY_LOOPBACK;
	else
		why = conn_add(sp, conn, KVS_SIDE_U);
	conn->mss = (uint16_t)ti.tcpi_advmss;
	conn->why = (uint8_t)why;
}

static void tc_closed(struct carrier_worker *w, struct splicer *sp, struct carrier_conn *conn)
{
	if (conn->dialing)
		dial_over(sp, conn);
	else
		conn_close(sp, conn);
}

/* --- splices --- */

static uint32_t id_take(struct carrier_worker *w, struct splicer *sp)
{
	if (!w->nids) {
		pthread_mutex_lock(&sp->ids_lock);
		w->nids = ids_take(&sp->ids, w->ids, IDS_CACHE / 2);
		pthread_mutex_unlock(&sp->ids_lock);
		for (unsigned i = 0; i < w->nids; i++)
			atomic_store_explicit(&sp->state[w->ids[i]], ID_LENT, memory_order_relaxed);
	}
	return w->nids ? w->ids[--w->nids] : 0;
}

static void id_give(struct carrier_worker *w, struct splicer *sp, uint32_t id)
{
	atomic_store_explicit(&sp->state[id], ID_LENT, memory_order_relaxed);
	if (w->nids == IDS_CACHE) {
		w->nids -= IDS_CACHE / 2;
		for (unsigned i = 0; i < IDS_CACHE / 2; i++)
			atomic_store_explicit(&sp->state[w->ids[w->nids + i]], ID_POOL, memory_order_relaxed);
		pthread_mutex_lock(&sp->ids_lock);
		ids_give(&sp->ids, w->ids + w->nids, IDS_CACHE / 2);
		pthread_mutex_unlock(&sp->ids_lock);
	}
	w->ids[w->nids++] = id;
}

static enum carrier_why tc_bind(struct carrier_worker *w, struct splicer *sp, struct carrier_pair *p,
				uint64_t dispatched_at)
{
	struct kvs_bind_args a = { .c = p->c->tuple,
				   .u = p->u->tuple,
				   .cookie = sp->owner,
				   .owner = sp->owner,
				   .dispatched_at = dispatched_at };
	enum carrier_why why;
	struct slot *slot;
	int r = -EBUSY;

	/* A device may have changed its mind. */
	why = served_why(sp, p->c->ifindex);
	why = why ? why : served_why(sp, p->u->ifindex);
	if (why)
		return why;
	for (unsigned i = 0; r == -EBUSY && i < BIND_TRIES; i++) {
		a.splice = id_take(w, sp);
		if (!a.splice)
			return CARRIER_WHY_FULL;
		do
			a.gen = atomic_fetch_add_explicit(&sp->gen, 1, memory_order_relaxed);
		while (!a.gen);
		slot = &sp->slots[a.splice];
		atomic_store_explicit(&slot->gen, a.gen, memory_order_relaxed);
		atomic_store_explicit(&slot->worker, w, memory_order_relaxed);
		atomic_store_explicit(&slot->pair, p, memory_order_release);
		atomic_store_explicit(&sp->state[a.splice], ID_BOUND, memory_order_release);
		r = splice_call(sp, CALL_bind, &a, sizeof(a));
		if (!r)
			break;
		atomic_store_explicit(&slot->pair, NULL, memory_order_release);
		if (r == -EBUSY) /* the id is another daemon's, or a connection is still bound: gc.c finds out */
			atomic_store_explicit(&sp->state[a.splice], ID_LIMBO, memory_order_release);
		else
			id_give(w, sp, a.splice);
	}
	if (r)
		return r == -EBUSY	    ? CARRIER_WHY_BOUND
		       : r == -ENOENT	    ? CARRIER_WHY_NO_HANDSHAKE
		       : r == -EAFNOSUPPORT ? CARRIER_WHY_FAMILY
					    : CARRIER_WHY_KERNEL;
	p->id = a.splice;
	p->gen = a.gen;
	return CARRIER_WHY_OK;
}

static bool framing_of(const struct carrier_arming *a, struct kvs_arm_args *k)
{
	uint64_t left = 0;
	bool r;

	k->left = a->left;
	switch (a->framing) {
	case HTTP_LENGTH:
		k->framing = KVS_LENGTH;
		return a->left != 0;
	case HTTP_UNTIL_CLOSE:
		k->framing = KVS_UNTIL_CLOSE;
		return true;
	case HTTP_CHUNKED:
		k->framing = KVS_CHUNKED;
		r = frame_walk(a->chunks, &k->walk, &left);
		k->left = left;
		return r;
	default:
		return false;
	}
}

static enum carrier_arm tc_arm(struct carrier_worker *w, struct splicer *sp, struct carrier_pair *p,
			       const struct carrier_arming *a)
{
	struct kvs_arm_args k = {
		.splice = p->id,
		.gen = p->gen,
		.u_read = a->u_read,
		.c_written = a->c_written,
		.first_at = a->first_at,
		.last_at = a->last_at,
	};
	int unacked = 0, r;

	if (!framing_of(a, &k)) {
		count(&w->arms[KVS_ARM_FRAMING]);
		return CARRIER_NEVER;
	}
	if (ioctl(a->u_fd, SIOCOUTQ, &unacked) < 0 || unacked) {
		count(&w->arms[KVS_ARM_N]);
		return CARRIER_AGAIN;
	}
	r = splice_call(sp, CALL_arm, &k, sizeof(k));
	count(&w->arms[k.result < KVS_ARM_N ? k.result : KVS_ARM_UNBOUND]);
	return !r ? CARRIER_ARMED : r == -EAGAIN ? CARRIER_AGAIN : CARRIER_NEVER;
}

void view_fill(const struct kvs_splice *s, struct carrier_view *ret)
{
	*ret = (struct carrier_view){
		.state = s->state,
		.flags = s->flags,
		.bytes = s->bytes,
		.segments = s->segments,
		.chunks = s->chunks,
		.gap_max = s->gap_max,
		.first_at = s->first_at,
		.last_at = s->last_at,
	};
	if (s->state == KVS_ACTIVE || s->state == KVS_ENDED) {
		int32_t n = (int32_t)(s->c_split + (s->fwd_end - s->u_split) - s->c.snd_una);

		ret->unacked = n > 0 ? (uint32_t)n : 0;
		ret->client_owes = n > 0 || !s->pod_win;
	}
}

static int tc_look(struct splicer *sp, const struct carrier_pair *p, struct carrier_view *ret)
{
	struct kvs_splice s;
	int r = splice_read(sp, p->id, &s);

	if (r || s.gen != p->gen || s.state == KVS_FREE)
		return -ENOENT;
	view_fill(&s, ret);
	return 0;
}

static void tc_closing(struct splicer *sp, const struct carrier_pair *p)
{
	struct kvs_closing_args a = { .splice = p->id, .gen = p->gen };

	splice_call(sp, CALL_closing, &a, sizeof(a));
}

static void unbound(struct carrier_worker *w, struct splicer *sp, const struct kvs_unbind_args *a,
		    struct carrier_view *ret)
{
	*ret = (struct carrier_view){
		.state = a->state,
		.flags = a->flags,
		.bytes = a->bytes,
		.segments = a->segments,
		.chunks = a->chunks,
		.gap_max = a->gap_max,
		.first_at = a->first_at,
		.last_at = a->last_at,
	};
	atomic_store_explicit(&sp->slots[a->splice].pair, NULL, memory_order_release);
	id_give(w, sp, a->splice);
}

static int tc_finish(struct carrier_worker *w, struct splicer *sp, struct carrier_pair *p, struct carrier_view *ret)
{
	struct kvs_unbind_args a = { .splice = p->id, .gen = p->gen };
	int r = splice_call(sp, CALL_unbind, &a, sizeof(a));

	if (!r)
		unbound(w, sp, &a, ret);
	return r == -EBUSY ? -EAGAIN : r;
}

static int tc_unbind(struct carrier_worker *w, struct splicer *sp, struct carrier_pair *p, bool force,
		     struct carrier_view *ret)
{
	struct kvs_unbind_args a = { .splice = p->id, .gen = p->gen, .force = force ? KVS_UNBIND_FORCE : 0 };
	bool busy = false;
	int r = -EAGAIN;

	for (unsigned i = 0; r == -EAGAIN && i < UNBIND_TRIES; i++) {
		r = splice_call(sp, CALL_unbind, &a, sizeof(a));
		if (r == -EBUSY) {
			busy = true;
			a.force = KVS_UNBIND_FORCE;
			r = -EAGAIN;
		}
	}
	if (r) { /* a packet is in the works, or the kernel knows better: gc.c goes on */
		count(&sp->counts[SERVICE_UNBIND_LATER]);
		atomic_store_explicit(&sp->state[p->id], ID_LIMBO, memory_order_release);
		return r == -EAGAIN ? 0 : r;
	}
	unbound(w, sp, &a, ret);
	return busy ? -EBUSY : 0;
}

const struct carrier_ops carrier_tc = {
	.name = "tc",
	.accepted = tc_accepted,
	.dialing = tc_dialing,
	.connected = tc_connected,
	.closed = tc_closed,
	.bind = tc_bind,
	.arm = tc_arm,
	.look = tc_look,
	.closing = tc_closing,
	.finish = tc_finish,
	.unbind = tc_unbind,
};
