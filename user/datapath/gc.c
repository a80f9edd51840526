/* SPDX-License-Identifier: Apache-2.0
 *
 * What has to go by itself. Everything here is found in the maps, nothing is remembered from one daemon to the next:
 *
 *   splices in LIMBO   Bound by a daemon that died (orphans): left to end; unbound at DONE, or at once if they never
 *                      were armed, or when nothing has moved for sp->orphan. Bound by a daemon that lives: left
 *                      alone. Ours, when the kernel put off an unbind: tried again. Free: back to the ids.
 *   connections        Closed ones go sp->retain after the close. Those whose socket is gone without a word are closed.
 *   older versions     The folder goes when none of its daemons lives and its programs have done nothing for
 *                      sp->orphan.
 *
 * Each call does a bounded piece. One sweep over all connections also tells by which devices they leave.
 */
#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "datapath/splice_int.h"

#define CONN_BATCH     512
#define CONN_YOUNG_NS  (5 * NS_PER_S)
#define SWEEP_EVERY    (2 * NS_PER_S)
#define LIMBO_BATCH    256
#define VERSIONS_MAX   8
#define VERSIONS_EVERY (10 * NS_PER_S)

struct gc {
	uint64_t since;	 /* what is older has survived a daemon, or belongs to another */
	uint32_t cursor; /* of the sweep, a bucket */
	bool going;
	uint64_t next_sweep;
	uint32_t used[SERVED_MAX];
	unsigned nused;
	struct kvs_tuple keys[CONN_BATCH];
	struct kvs_conn values[CONN_BATCH];
	struct {
		unsigned long abi;
		uint64_t packets, since;
	} versions[VERSIONS_MAX];
	uint64_t next_versions;
};

/* Client or pod has left before the end, so there is nobody who could bring it there. A client that has closed its side
 * counts as gone, as it does for the relay. */
static bool is_cut(const struct kvs_splice *s)
{
	return s->flags & (KVS_F_CLIENT | KVS_F_POD_RST | KVS_F_BROKEN) ||
	       (s->flags & KVS_F_POD_FIN && s->state == KVS_ACTIVE);
}

enum gc_splice gc_judge_splice(const struct kvs_splice *s, uint64_t self, bool alive, uint64_t progress_at,
			       uint64_t now, uint64_t orphan)
{
	if (s->state == KVS_FREE)
		return GC_FREE;
	if (s->owner == self) /* the kernel put it off */
		return GC_FORCE;
	if (alive)
		return GC_KEEP;
	if (s->state >= KVS_ARMED && s->state <= KVS_ENDED)
		return now - progress_at >= (is_cut(s) ? ORPHAN_CUT_NS : orphan) ? GC_FORCE : GC_KEEP;
	return GC_UNBIND;
}

enum gc_conn gc_judge_conn(const struct kvs_conn *c, bool bound, uint64_t now, uint64_t retain, uint64_t since)
{
	if (bound)
		return GC_CONN_KEEP;
	if (c->closed_at)
		return now > c->closed_at && now - c->closed_at >= retain ? GC_CONN_DELETE : GC_CONN_KEEP;
	return c->born < since || (now > c->born && now - c->born >= CONN_YOUNG_NS) ? GC_CONN_ASK : GC_CONN_KEEP;
}

/* --- splices --- */

int gc_close_conn(struct splicer *sp, const struct kvs_tuple *t, bool delete_now)
{
	struct kvs_conn_close_args a = { .tuple = *t, .gc = delete_now };
	struct kvs_conn c;

	if (bpf_map_lookup_elem(sp->map[MAP_conns], t, &c) < 0)
		return -errno;
	a.born = c.born;
	return splice_call(sp, CALL_conn_close, &a, sizeof(a));
}

static bool socket_gone(struct splicer *sp, const struct kvs_tuple *t)
{
	struct diag d;
	int r = diag_ask(sp->diag_fd, t, &d);

	return r == -ENOENT || (!r && d.state == TCP_TIME_WAIT);
}

static void limbo_unbind(struct splicer *sp, uint32_t id, const struct kvs_splice *s, bool force)
{
	struct kvs_unbind_args a = { .splice = id, .gen = s->gen, .force = force ? KVS_UNBIND_FORCE : 0 };
	struct kvs_closing_args c = { .splice = id, .gen = s->gen };
	bool orphan = s->owner != sp->owner;

	if (orphan && force) { /* what is left of its sockets resets its peers */
		splice_call(sp, CALL_closing, &c, sizeof(c));
		diag_destroy(sp->diag_fd, &s->u_tuple);
		diag_destroy(sp->diag_fd, &s->c_tuple);
	}
	if (splice_call(sp, CALL_unbind, &a, sizeof(a)))
		return;
	if (!orphan)
		return;
	count(&sp->counts[s->state == KVS_DONE ? SERVICE_ORPHAN_DONE
			  : !force	       ? SERVICE_ORPHAN_UNUSED
			  : is_cut(s)	       ? SERVICE_ORPHAN_CUT
					       : SERVICE_ORPHAN_STUCK]);
	gc_close_conn(sp, &s->c_tuple, false);
	gc_close_conn(sp, &s->u_tuple, false);
}

/* True: still in limbo, and a dead owner's. */
static bool limbo_look(struct splicer *sp, uint32_t id, uint64_t now)
{
	struct slot *slot = &sp->slots[id];
	struct kvs_splice s;
	enum gc_splice what;
	uint64_t progress;
	bool alive;

	if (splice_read(sp, id, &s))
		return false;
	alive = s.state != KVS_FREE && s.owner != sp->owner && owner_alive(PIN_DIR, s.owner);
	progress = s.bytes + s.c.snd_una + ((uint64_t)s.state << 60);
	if (progress != slot->progress || !slot->progress_at) {
		slot->progress = progress;
		slot->progress_at = now;
	}
	what = gc_judge_splice(&s, sp->owner, alive, slot->progress_at, now, sp->orphan);
	if (what == GC_UNBIND || what == GC_FORCE) {
		limbo_unbind(sp, id, &s, what == GC_FORCE);
		if (splice_read(sp, id, &s) == 0 && s.state == KVS_FREE)
			what = GC_FREE;
	}
	if (what != GC_FREE)
		return s.owner != sp->owner && !alive;
	slot->progress_at = 0;
	pthread_mutex_lock(&sp->ids_lock);
	atomic_store_explicit(&sp->state[id], ID_POOL, memory_order_release);
	ids_give(&sp->ids, &id, 1);
	pthread_mutex_unlock(&sp->ids_lock);
	return false;
}

void gc_limbo(struct splicer *sp, uint64_t now)
{
	unsigned left = LIMBO_BATCH;
	uint32_t id = sp->limbo_at;

	for (; id < sp->nids && left; id++) {
		if (atomic_load_explicit(&sp->state[id], memory_order_acquire) != ID_LIMBO)
			continue;
		sp->orphans_seen += limbo_look(sp, id, now);
		left--;
	}
	if (id == sp->nids) {
		atomic_store_explicit(&sp->orphans, sp->orphans_seen, memory_order_relaxed);
		sp->orphans_seen = 0;
		id = 1;
	}
	sp->limbo_at = id;
}

/* --- connections --- */

static void note_used(struct gc *g, uint32_t ifindex)
{
	for (unsigned i = 0; i < g->nused; i++)
		if (g->used[i] == ifindex)
			return;
	if (g->nused < SERVED_MAX)
		g->used[g->nused++] = ifindex;
}

static bool is_bound(struct splicer *sp, const struct kvs_conn *c)
{
	struct kvs_splice s;

	return c->splice && splice_read(sp, c->splice, &s) == 0 && s.gen == c->gen && s.state != KVS_FREE;
}

static void look_conn(struct splicer *sp, const struct kvs_tuple *t, const struct kvs_conn *c, uint64_t now)
{
	struct kvs_conn_close_args a = { .tuple = *t, .born = c->born };

	note_used(sp->gc, c->half.ifindex);
	switch (gc_judge_conn(c, is_bound(sp, c), now, sp->retain, sp->gc->since)) {
	case GC_CONN_DELETE:
		a.gc = 1;
		if (!splice_call(sp, CALL_conn_close, &a, sizeof(a)))
			count(&sp->counts[SERVICE_CONN_EXPIRED]);
		break;
	case GC_CONN_ASK:
		if (socket_gone(sp, t)) {
			count(&sp->counts[SERVICE_CONN_GONE]);
			splice_call(sp, CALL_conn_close, &a, sizeof(a));
		}
		break;
	case GC_CONN_KEEP:
		break;
	}
}

static void sweep_over(struct splicer *sp, struct gc *g, uint64_t now)
{
	g->going = false;
	g->next_sweep = now + (sp->retain / 2 < SWEEP_EVERY ? sp->retain / 2 : SWEEP_EVERY);
	pthread_mutex_lock(&sp->used_lock);
	memcpy(sp->used, g->used, g->nused * sizeof(*g->used));
	sp->nused = g->nused;
	sp->used_known = true;
	pthread_mutex_unlock(&sp->used_lock);
	g->nused = 0;
}

void gc_conns(struct splicer *sp, uint64_t now)
{
	struct gc *g = sp->gc;
	uint32_t n = CONN_BATCH, next;
	int r;

	if (!g->going && now < g->next_sweep)
		return;
	r = bpf_map_lookup_batch(sp->map[MAP_conns], g->going ? &g->cursor : NULL, &next, g->keys, g->values, &n, NULL);
	if (r < 0 && errno != ENOENT) { /* ENOSPC: a bucket longer than the batch, which no hash has */
		sweep_over(sp, g, now);
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		look_conn(sp, &g->keys[i], &g->values[i], now);
	g->going = true;
	g->cursor = next;
	if (r < 0)
		sweep_over(sp, g, now);
}

/* --- other versions --- */

/* What the programs of a version have done with packets of its connections: the sum of its rows, but the first, which
 * counts packets of others. 0: it has none. */
static uint64_t rows_sum(const char *dir)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info), zero = 0;
	int fd = pins_map(dir, "kvs_rows"), cpus = (int)cpus_possible();
	uint64_t sum = 0, *v;
	unsigned words;

	if (fd < 0)
		return 0;
	if (bpf_obj_get_info_by_fd(fd, &info, &len) < 0 || info.type != BPF_MAP_TYPE_PERCPU_ARRAY)
		info.value_size = 0;
	words = (info.value_size + 7) / 8;
	v = calloc(words ? words : 1, 8 * (size_t)cpus);
	if (words && v && bpf_map_lookup_elem(fd, &zero, v) == 0)
		for (unsigned i = 0; i < words * (unsigned)cpus; i++)
			sum += i % words ? v[i] : 0;
	free(v);
	close(fd);
	return sum;
}

static void look_version(struct splicer *sp, unsigned long abi, uint64_t now)
{
	struct gc *g = sp->gc;
	unsigned i, room = VERSIONS_MAX;
	char dir[PIN_MAX];
	uint64_t packets;

	snprintf(dir, sizeof(dir), PIN_ROOT "/v%lu", abi);
	for (i = 0; i < VERSIONS_MAX && g->versions[i].abi != abi; i++)
		if (!g->versions[i].since)
			room = i;
	if (i == VERSIONS_MAX)
		i = room;
	if (i == VERSIONS_MAX)
		return;
	packets = rows_sum(dir);
	if (g->versions[i].abi != abi || packets != g->versions[i].packets || owner_others(dir, 0)) {
		g->versions[i].abi = abi;
		g->versions[i].packets = packets;
		g->versions[i].since = now;
		return;
	}
	if (now - g->versions[i].since < sp->orphan)
		return;
	version_remove(dir);
	count(&sp->counts[SERVICE_VERSION]);
	memset(&g->versions[i], 0, sizeof(g->versions[i]));
}

void gc_versions(struct splicer *sp, uint64_t now)
{
	struct dirent *e;
	DIR *d;

	if (now < sp->gc->next_versions)
		return;
	sp->gc->next_versions = now + (sp->orphan / 2 < VERSIONS_EVERY ? sp->orphan / 2 : VERSIONS_EVERY);
	owner_others(PIN_DIR, sp->owner);
	d = opendir(PIN_ROOT);
	while (d && (e = readdir(d))) {
		unsigned long abi;
		char rest;

		if (sscanf(e->d_name, "v%lu%c", &abi, &rest) == 1 && abi != KVS_ABI)
			look_version(sp, abi, now);
	}
	if (d)
		closedir(d);
}

int gc_start(struct splicer *sp)
{
	uint64_t now = time_mono();

	sp->gc = calloc(1, sizeof(*sp->gc));
	if (!sp->gc)
		return -ENOMEM;
	sp->gc->since = now;
	/* Which devices are in use must be known before any is let go. */
	do
		gc_conns(sp, now);
	while (sp->gc->going);
	return 0;
}

void gc_stop(struct splicer *sp)
{
	free(sp->gc);
	sp->gc = NULL;
}
