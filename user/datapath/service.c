/* SPDX-License-Identifier: Apache-2.0
 *
 * The datapath's own thread. It reads the ring buffer and tells workers; each tick it looks at some splices of ours
 * (watch.c), at those in limbo and at connections (gc.c).
 *
 * A ring buffer has one reader: its position is shared memory. Two daemons may live at once, while an old one drains,
 * so the reader is whoever holds the lock (owner.c). The other one finds out by looking, which is why it ticks faster;
 * the tail of a response is in the maps as well.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "datapath/splice_int.h"

#define TICK_MS	    250
#define TICK_ALONE  20 /* without the ring */
#define WATCH_BATCH 1024
#define TURNS	    4 /* ticks in which all splices are looked at, as long as the batch allows */

struct tail_value {
	struct kvs_event e;
	uint8_t b[KVS_TAIL_BYTES + KVS_TAIL_SLACK];
};

/* Out of the ring in which it was kept. */
static size_t tail_unroll(const struct kvs_event *e, const uint8_t *b, size_t room, char out[KVS_TAIL_BYTES])
{
	size_t n = e->len, at = e->tail_at;

	if (n > KVS_TAIL_BYTES || n > room)
		return 0;
	if (!at) {
		memcpy(out, b, n);
		return n;
	}
	if (room < KVS_TAIL_BYTES || at >= KVS_TAIL_BYTES)
		return 0;
	for (size_t i = 0; i < n; i++)
		out[i] = (char)b[(at + i) % KVS_TAIL_BYTES];
	return n;
}

/* The tail of a response that has ended, where the kernel keeps it. */
static size_t tail_read(struct splicer *sp, uint32_t id, uint32_t gen, char out[KVS_TAIL_BYTES])
{
	struct tail_value t;

	if (bpf_map_lookup_elem(sp->map[MAP_tails], &id, &t) < 0 || t.e.gen != gen || t.e.splice != id)
		return 0;
	return tail_unroll(&t.e, t.b, KVS_TAIL_BYTES, out);
}

static bool reads_ours(struct splicer *sp, const struct kvs_event *e, struct kvs_splice *s)
{
	return splice_read(sp, e->splice, s) == 0 && s->gen == e->gen;
}

/* FIN and RST of the pod matter only while bytes are missing, which the splice tells better than the event. */
static bool pod_matters(struct splicer *sp, const struct kvs_event *e)
{
	struct kvs_splice s;
	struct watch w = { .gen = e->gen };
	uint32_t told;

	if (!reads_ours(sp, e, &s))
		return false;
	told = watch_judge(&s, e->gen, &w, e->at, UINT64_MAX, true);
	return told & (e->type == KVS_EV_POD_FIN ? 1U << CARRIER_POD_FIN : 1U << CARRIER_POD_RST);
}

static int event_take(void *arg, void *data, size_t size)
{
	static const uint8_t types[KVS_EVENTS_N] = {
		[KVS_EV_ENDED] = CARRIER_ENDED,	    [KVS_EV_DONE] = CARRIER_DONE,
		[KVS_EV_BROKEN] = CARRIER_BROKEN,   [KVS_EV_POD_FIN] = CARRIER_POD_FIN,
		[KVS_EV_POD_RST] = CARRIER_POD_RST, [KVS_EV_ORPHAN] = CARRIER_ORPHAN,
	};
	struct splicer *sp = arg;
	const struct kvs_event *e = data;
	char tail[KVS_TAIL_BYTES];
	struct slot *slot;
	size_t n;

	if (size < sizeof(*e) || e->type >= KVS_EVENTS_N || e->cookie != sp->owner) {
		count(&sp->counts[SERVICE_BAD_EVENT]);
		return 0;
	}
	if ((e->type == KVS_EV_POD_FIN || e->type == KVS_EV_POD_RST) && !pod_matters(sp, e))
		return 0;
	slot = &sp->slots[e->splice < sp->nids ? e->splice : 0];
	if (e->type == KVS_EV_ENDED)
		slot->ended = e->gen;
	/* The ring had room for this one, but not for the tail before. */
	if (e->type == KVS_EV_DONE && slot->ended != e->gen) {
		count(&sp->counts[SERVICE_LATE]);
		n = tail_read(sp, e->splice, e->gen, tail);
		carrier_tell(sp, e->splice, e->gen, CARRIER_ENDED, e->flags, e->bytes, tail, n);
	}
	n = tail_unroll(e, (const uint8_t *)(e + 1), size - sizeof(*e), tail);
	if (carrier_tell(sp, e->splice, e->gen, types[e->type], e->flags, e->bytes, tail, n))
		count(&sp->counts[SERVICE_BAD_EVENT]);
	return 0;
}

/* --- watching --- */

static void tell_found(struct splicer *sp, uint32_t id, uint32_t gen, const struct kvs_splice *s, uint32_t found)
{
	char tail[KVS_TAIL_BYTES];
	size_t n = found & 1U << CARRIER_ENDED ? tail_read(sp, id, gen, tail) : 0;

	for (unsigned type = 0; type < CARRIER_EVENTS_N; type++)
		if (found & 1U << type)
			carrier_tell(sp, id, gen, (enum carrier_event_type)type, s->flags, s->bytes, tail,
				     type == CARRIER_ENDED ? n : 0);
}

static void watch_one(struct splicer *sp, uint32_t id, uint64_t now)
{
	struct slot *slot = &sp->slots[id];
	uint32_t gen = atomic_load_explicit(&slot->gen, memory_order_relaxed), found;
	struct kvs_splice s;
	struct diag d;
	bool served, first = slot->watch.gen != gen;

	if (!atomic_load_explicit(&slot->pair, memory_order_acquire) || splice_read(sp, id, &s))
		return;
	if (first)
		slot->watch = (struct watch){ .gen = gen };
	if (first && s.gen != gen)
		return; /* its bind may be under way; next time it is gone */
	served = s.state < KVS_ACTIVE || (served_why(sp, s.c.ifindex) != CARRIER_WHY_NOT_SERVED &&
					  served_why(sp, s.u.ifindex) != CARRIER_WHY_NOT_SERVED);
	found = watch_judge(&s, gen, &slot->watch, now, sp->stall, served);
	if (watch_quiet(&s, &slot->watch) && diag_ask(sp->diag_fd, &s.u_tuple, &d) == 0 &&
	    watch_bypassed(&s, &slot->watch, d.data_in))
		found |= 1U << CARRIER_NOT_SERVED;
	found &= ~slot->watch.told;
	if (!found)
		return;
	slot->watch.told |= found;
	count(&sp->counts[SERVICE_LATE]);
	tell_found(sp, id, gen, &s, found);
}

static void watch_some(struct splicer *sp, uint64_t now, unsigned turns)
{
	unsigned left = WATCH_BATCH;
	uint32_t id = sp->watch_at, steps = sp->nids / turns + 1;

	while (steps-- && left) {
		if (++id >= sp->nids)
			id = 1;
		if (id < sp->nids && atomic_load_explicit(&sp->state[id], memory_order_relaxed) == ID_BOUND) {
			watch_one(sp, id, now);
			left--;
		}
	}
	sp->watch_at = id;
}

/* --- the thread --- */

static void ring_hold(struct splicer *sp)
{
	bool yield = atomic_load(&sp->yield_ring);

	if (sp->ring && yield) {
		ring_buffer__consume(sp->ring);
		ring_buffer__free(sp->ring);
		sp->ring = NULL;
		close(sp->ring_fd);
		sp->ring_fd = -1;
	} else if (!sp->ring && !yield) {
		int fd = ring_lock();

		if (fd < 0)
			return;
		sp->ring = ring_buffer__new(sp->map[MAP_events], event_take, sp, NULL);
		sp->ring_fd = sp->ring ? fd : -1;
		if (!sp->ring)
			close(fd);
	}
}

static void *service_main(void *arg)
{
	struct splicer *sp = arg;
	uint64_t next = 0, now;
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	while (!atomic_load(&sp->stop)) {
		struct pollfd p[2] = { { .fd = sp->wake_fd, .events = POLLIN }, { .fd = -1, .events = POLLIN } };
		unsigned tick = sp->ring ? TICK_MS : TICK_ALONE;
		uint64_t n;

		if (sp->ring)
			p[1].fd = ring_buffer__epoll_fd(sp->ring);
		now = time_mono();
		poll(p, 2, now >= next ? 0 : (int)((next - now) / NS_PER_MS) + 1);
		if (p[0].revents && read(sp->wake_fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
			break;
		if (sp->ring)
			ring_buffer__consume(sp->ring);
		now = time_mono();
		if (now < next)
			continue;
		next = now + tick * NS_PER_MS;
		ring_hold(sp);
		watch_some(sp, now, sp->ring ? TURNS : 1);
		gc_limbo(sp, now);
		gc_conns(sp, now);
		gc_versions(sp, now);
	}
	return NULL;
}

int service_start(struct splicer *sp)
{
	int r;

	ring_hold(sp);
	r = -pthread_create(&sp->thread, NULL, service_main, sp);
	sp->started = !r;
	return r;
}

void service_kick(struct splicer *sp)
{
	uint64_t one = 1;

	if (write(sp->wake_fd, &one, sizeof(one)) < 0)
		return; /* full: it is awake anyway */
}

void service_stop(struct splicer *sp)
{
	if (sp->started) {
		atomic_store(&sp->stop, true);
		service_kick(sp);
		pthread_join(sp->thread, NULL);
	}
	ring_buffer__free(sp->ring);
	if (sp->ring_fd >= 0)
		close(sp->ring_fd);
}
