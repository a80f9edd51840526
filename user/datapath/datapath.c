/* SPDX-License-Identifier: Apache-2.0
 *
 * Reconcile, always the same way: desired (sorted), actual (read from the kernel), the difference is what is done. So a
 * datapath that took over the pins of a dead daemon does exactly what is needed, and doing it again does nothing.
 */
#include "datapath/datapath.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "datapath/splice_int.h"

#define POD_WORDS (sizeof(struct kvs_pod_counts) / 8)
#define SETTLE	  (60 * NS_PER_S) /* until all sources of pods have spoken: what a former daemon counted stays so long */

void key_from_addr(struct kvs_pod_key *k, const struct net_addr *a)
{
	memset(k, 0, sizeof(*k));
	k->port = net_addr_port(a);
	if (a->sa.sa_family == AF_INET) {
		k->addr.b[10] = k->addr.b[11] = 0xff;
		memcpy(k->addr.b + 12, &a->v4.sin_addr, 4);
	} else {
		memcpy(k->addr.b, &a->v6.sin6_addr, 16);
	}
}

static struct net_addr addr_from_key(const struct kvs_addr *k, uint16_t port)
{
	struct net_addr a = { .len = sizeof(a.v6) };

	a.v6.sin6_family = AF_INET6;
	memcpy(&a.v6.sin6_addr, k->b, 16);
	if (IN6_IS_ADDR_V4MAPPED(&a.v6.sin6_addr)) {
		a = (struct net_addr){ .len = sizeof(a.v4) };
		a.v4.sin_family = AF_INET;
		memcpy(&a.v4.sin_addr, k->b + 12, 4);
	}
	net_addr_set_port(&a, port);
	return a;
}

void key_format(const struct kvs_pod_key *k, char out[NET_NAME_MAX])
{
	struct net_addr a = addr_from_key(&k->addr, k->port);

	net_addr_format(&a, out);
}

void addr_format(const struct kvs_addr *addr, char out[NET_NAME_MAX])
{
	struct net_addr a = addr_from_key(addr, 0);

	net_addr_format_ip(&a, out);
}

unsigned cpus_possible(void)
{
	int n = libbpf_num_possible_cpus();

	return n > 0 ? (unsigned)n : 1;
}

int map_sum(int fd, const void *key, uint64_t *scratch, uint64_t *ret, unsigned words)
{
	int cpus = libbpf_num_possible_cpus();

	if (bpf_map_lookup_elem(fd, key, scratch) < 0)
		return -errno;
	for (unsigned w = 0; w < words; w++) {
		ret[w] = 0;
		for (int c = 0; c < cpus; c++)
			ret[w] += scratch[(unsigned)c * words + w];
	}
	return 0;
}

static int key_cmp(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct kvs_pod_key));
}

static int names_parse(struct datapath *dp, const char *devices)
{
	struct str rest = str_of(devices);

	dp->auto_devices = !devices || !*devices || strcmp(devices, "auto") == 0;
	if (dp->auto_devices)
		return 0;
	dp->names = calloc(strlen(devices) + 1, sizeof(*dp->names));
	if (!dp->names)
		return -ENOMEM;
	while (rest.n) {
		const char *comma = memchr(rest.p, ',', rest.n);
		struct str name = { rest.p, comma ? (size_t)(comma - rest.p) : rest.n };

		rest.p += name.n + !!comma;
		rest.n -= name.n + !!comma;
		name = str_trim(name);
		if (name.n && name.n < IF_NAMESIZE)
			memcpy(dp->names[dp->nnames++], name.p, name.n);
	}
	return 0;
}

static bool mode_splices(const char *mode)
{
	return !mode || strcmp(mode, "auto") == 0 || strcmp(mode, "tc") == 0;
}

/* Do others use the splice's programs? Splices that a former daemon has left need them, and one that still lives. */
static bool others_splice(const struct datapath *dp)
{
	return pins_in_use(PIN_DIR) ||
	       (owner_others(PIN_DIR, dp->owner) && access(PIN_DIR "/progs/kvs_bind", F_OK) == 0);
}

static int load_locked(struct datapath *dp)
{
	char why[DATAPATH_WHY_MAX] = "";
	int r;

	if (dp->wants_splices || others_splice(dp)) {
		r = kernel_load(dp, SET_SPLICE);
		if (!r) {
			struct splicer *sp = splicer_new(dp);

			r = sp ? 0 : -errno;
			atomic_store(&dp->sp, sp);
			atomic_store(&dp->on, sp && dp->wants_splices);
		}
		if (!r || r == -EEXIST)
			return r;
		memcpy(why, dp->why, sizeof(why));
	}
	r = kernel_load(dp, SET_COUNT);
	if (!r && why[0])
		why_set(dp->why, 0, "no splices: %.400s", why);
	return r;
}

static int load(struct datapath *dp)
{
	int lock = kernel_enter(dp), r;

	if (lock < 0)
		return lock;
	r = load_locked(dp);
	if (!r && !dp->kernel) {
		r = devices_adopt(dp);
		if (r)
			why_set(dp->why, r, "cannot read what is attached: %s", strerror(-r));
		dp->kernel = !r;
	}
	if (!dp->kernel) {
		owner_close(dp->owner, dp->owner_fd);
		dp->owner_fd = -1;
	}
	close(lock);
	return r;
}

struct datapath *datapath_open(const struct datapath_opts *o, char why[DATAPATH_WHY_MAX])
{
	struct datapath *dp = calloc(1, sizeof(*dp));
	int cpus;

	if (!dp)
		return NULL;
	pthread_mutex_init(&dp->workers_lock, NULL);
	programs_init(&dp->progs, SET_COUNT);
	for (unsigned i = 0; i < MAPS; i++)
		dp->map[i] = -1;
	dp->pods_fd = dp->devices_fd = dp->owner_fd = -1;
	dp->opened_at = time_mono();
	dp->attach = o->attach;
	dp->stall = o->stall_ns;
	dp->retain = o->retain_ns;
	dp->orphan = o->orphan_ns;
	dp->splices = o->splices;
	cpus = libbpf_num_possible_cpus();
	dp->cpu_values = calloc(cpus > 0 ? (size_t)cpus : 1, CPU_VALUE_MAX);
	if (!dp->cpu_values || names_parse(dp, o->devices))
		goto oom;
	if (o->mode && strcmp(o->mode, "off") == 0) {
		why_set(dp->why, 0, "datapath.mode is off");
		goto out;
	}
	dp->wants_splices = mode_splices(o->mode);
	load(dp);
out:
	memcpy(why, dp->why, sizeof(dp->why));
	return dp;
oom:
	datapath_close(dp, false);
	errno = ENOMEM;
	return NULL;
}

void datapath_close(struct datapath *dp, bool unpin)
{
	if (!dp)
		return;
	splicer_free(atomic_load(&dp->sp));
	owner_close(dp->owner, dp->owner_fd);
	if (unpin && dp->kernel) {
		for (unsigned i = 0; i < dp->ndevices; i++)
			detach_device(PIN_DIR, &dp->ours, dp->devices[i].ifindex);
		pins_remove(PIN_DIR);
	}
	programs_close(&dp->progs);
	for (unsigned i = 0; i < MAPS; i++)
		if (dp->map[i] >= 0)
			close(dp->map[i]);
	if (dp->pods_fd >= 0)
		close(dp->pods_fd);
	if (dp->devices_fd >= 0)
		close(dp->devices_fd);
	free(dp->cpu_values);
	free(dp->names);
	free(dp->devices);
	free(dp->pods);
	free(dp->listeners);
	pthread_mutex_destroy(&dp->workers_lock);
	free(dp);
}

bool datapath_kernel(const struct datapath *dp)
{
	return dp->kernel;
}

const char *datapath_carrier(const struct datapath *dp)
{
	return atomic_load(&dp->on) ? "tc" : "relay";
}

const char *datapath_why(const struct datapath *dp)
{
	return dp->why;
}

/* Make the keys of the map equal to <want> (sorted, unique, <n> of them), or let those of others stay; <value> is what
 * new ones get. */
static int keys_reconcile(struct datapath *dp, int fd, const struct kvs_pod_key *want, unsigned n, unsigned room,
			  const void *value, const char *map)
{
	struct kvs_pod_key key, next, *stale = calloc(room, sizeof(*stale));
	bool keep = dp->shared || time_mono() - dp->opened_at < SETTLE;
	unsigned nstale = 0;
	int r = 0, more;

	if (!stale)
		return -ENOMEM;
	/* Walking and deleting at once would begin the walk anew: collect first. */
	for (more = bpf_map_get_next_key(fd, NULL, &next); !more && nstale < room;
	     more = bpf_map_get_next_key(fd, &key, &next)) {
		key = next;
		if (!keep && (!n || !bsearch(&key, want, n, sizeof(key), key_cmp)))
			stale[nstale++] = key;
	}
	for (unsigned i = 0; i < nstale; i++)
		bpf_map_delete_elem(fd, &stale[i]);
	free(stale);
	for (unsigned i = 0; i < n && !r; i++)
		if (bpf_map_update_elem(fd, &want[i], value, BPF_NOEXIST) < 0 && errno != EEXIST)
			r = why_set(dp->why, -errno, "cannot add entry %u of %u to %s (room for %u): %s", i + 1, n, map,
				    room, strerror(errno));
	return r;
}

/* Those of <was> that are not in <want>: ours no longer, whatever others do. One who wants one adds it again. */
static void keys_leave(int fd, const struct kvs_pod_key *was, unsigned nwas, const struct kvs_pod_key *want, unsigned n)
{
	for (unsigned i = 0; i < nwas; i++)
		if (!n || !bsearch(&was[i], want, n, sizeof(*want), key_cmp))
			bpf_map_delete_elem(fd, &was[i]);
}

static int pods_reconcile(struct datapath *dp)
{
	int r, e = 0;

	memset(dp->cpu_values, 0, (size_t)libbpf_num_possible_cpus() * CPU_VALUE_MAX);
	r = keys_reconcile(dp, dp->pods_fd, dp->pods, dp->npods, KVS_MAX_PODS, dp->cpu_values, "kvs_pods");
	if (atomic_load(&dp->sp))
		e = keys_reconcile(dp, dp->map[MAP_pod_times], dp->pods, dp->npods, KVS_MAX_PODS, dp->cpu_values,
				   "kvs_pod_times");
	return r ? r : e;
}

static int listeners_reconcile(struct datapath *dp)
{
	uint32_t one = 1;

	if (!atomic_load(&dp->sp))
		return 0;
	return keys_reconcile(dp, dp->map[MAP_listeners], dp->listeners, dp->nlisteners, KVS_MAX_LISTENERS, &one,
			      "kvs_listeners");
}

/* Sorted and unique keys of <addrs>, malloced. */
static struct kvs_pod_key *keys_of(const struct net_addr *addrs, size_t stride, unsigned n, unsigned *ret_n)
{
	struct kvs_pod_key *v = calloc(n ? n : 1, sizeof(*v));
	unsigned unique = 0;

	if (!v)
		return NULL;
	for (unsigned i = 0; i < n; i++)
		key_from_addr(&v[i], (const struct net_addr *)((const char *)addrs + i * stride));
	if (n)
		qsort(v, n, sizeof(*v), key_cmp);
	for (unsigned i = 0; i < n; i++)
		if (!i || key_cmp(&v[i], &v[unique - 1]) != 0)
			v[unique++] = v[i];
	*ret_n = unique;
	return v;
}

int datapath_set_listeners(struct datapath *dp, const struct net_addr *addrs, unsigned n)
{
	static const uint8_t any4[16] = { [10] = 0xff, 0xff };
	struct kvs_pod_key *v;
	unsigned unique = 0;

	v = keys_of(addrs, sizeof(*addrs), n, &unique);
	if (!v)
		return -ENOMEM;
	for (unsigned i = 0; i < unique; i++) /* 0.0.0.0 is any address as :: is */
		if (memcmp(v[i].addr.b, any4, sizeof(any4)) == 0)
			memset(v[i].addr.b, 0, sizeof(v[i].addr.b));
	qsort(v, unique, sizeof(*v), key_cmp);
	if (atomic_load(&dp->sp))
		keys_leave(dp->map[MAP_listeners], dp->listeners, dp->nlisteners, v, unique);
	free(dp->listeners);
	dp->listeners = v;
	dp->nlisteners = unique;
	return listeners_reconcile(dp);
}

static int refresh_locked(struct datapath *dp)
{
	int r, l, d;

	dp->why[0] = '\0';
	pins_listen();
	programs_follow(dp);
	dp->shared = owner_others(PIN_DIR, dp->owner);
	r = pods_reconcile(dp);
	l = listeners_reconcile(dp);
	d = devices_reconcile(dp);
	return r ? r : l ? l : d;
}

int datapath_refresh(struct datapath *dp)
{
	int lock, r;

	if (dp->away && !dp->kernel)
		load(dp);
	if (!dp->kernel)
		return 0;
	lock = pins_lock(false);
	if (lock == -EWOULDBLOCK) /* another one starts: next time */
		return 0;
	r = refresh_locked(dp);
	if (lock >= 0)
		close(lock);
	return r;
}

int datapath_set_mode(struct datapath *dp, const char *mode)
{
	bool splices = mode_splices(mode), off = strcmp(mode, "off") == 0;
	int r;

	dp->wants_splices = splices;
	dp->away &= !off;
	if (atomic_load(&dp->sp) || (!splices && (dp->kernel || off))) {
		atomic_store(&dp->on, splices);
		return 0;
	}
	dp->why[0] = '\0';
	r = load(dp);
	return r ? r : datapath_refresh(dp);
}

void datapath_drain(struct datapath *dp)
{
	struct splicer *sp = atomic_load(&dp->sp);

	atomic_store(&dp->on, false);
	if (sp)
		atomic_store(&sp->yield_ring, true);
}

int datapath_set_pods(struct datapath *dp, const struct datapath_pod *pods, unsigned n)
{
	_Static_assert(offsetof(struct datapath_pod, addr) == 0, "a pod begins with its address");
	struct kvs_pod_key *v;
	unsigned unique;

	v = keys_of((const struct net_addr *)pods, sizeof(*pods), n, &unique);
	if (!v)
		return -ENOMEM;
	if (dp->kernel)
		keys_leave(dp->pods_fd, dp->pods, dp->npods, v, unique);
	if (atomic_load(&dp->sp))
		keys_leave(dp->map[MAP_pod_times], dp->pods, dp->npods, v, unique);
	free(dp->pods);
	dp->pods = v;
	dp->npods = unique;
	return datapath_refresh(dp);
}

static int counts_read(struct datapath *dp, const struct kvs_pod_key *k, struct datapath_counts *ret)
{
	_Static_assert(sizeof(*ret) == sizeof(struct kvs_pod_counts), "the API's counts mirror the ABI's");
	uint64_t sum[POD_WORDS];
	int r = map_sum(dp->pods_fd, k, dp->cpu_values, sum, POD_WORDS);

	if (!r)
		memcpy(ret, sum, sizeof(*ret));
	return r;
}

int datapath_counts(struct datapath *dp, const struct net_addr *pod, struct datapath_counts *ret)
{
	struct kvs_pod_key k;

	if (!dp->kernel)
		return -ENOENT;
	key_from_addr(&k, pod);
	return counts_read(dp, &k, ret);
}

int datapath_times(struct datapath *dp, const struct net_addr *pod, struct kvs_pod_times *ret)
{
	struct kvs_pod_key k;

	if (!atomic_load(&dp->sp))
		return -ENOENT;
	key_from_addr(&k, pod);
	return map_sum(dp->map[MAP_pod_times], &k, dp->cpu_values, (uint64_t *)ret, sizeof(*ret) / 8);
}

static void describe_flow(struct jw *w, const char *key, const struct datapath_flow *f)
{
	jw_key(w, key);
	jw_obj(w);
	jw_ku64(w, "bytes", f->bytes);
	jw_ku64(w, "packets", f->packets);
	jw_ku64(w, "connections", f->connections);
	jw_end_obj(w);
}

void datapath_describe(struct datapath *dp, struct jw *w)
{
	jw_obj(w);
	jw_kstr(w, "carrier", datapath_carrier(dp));
	jw_kbool(w, "kernel", dp->kernel);
	jw_kstr(w, "why", dp->why);
	jw_kstr(w, "pins", dp->kernel ? PIN_DIR : NULL);
	jw_key(w, "devices");
	jw_arr(w);
	for (unsigned i = 0; i < dp->ndevices; i++)
		describe_device(dp, w, &dp->devices[i]);
	jw_end_arr(w);
	jw_key(w, "pods");
	jw_arr(w);
	for (unsigned i = 0; i < dp->npods; i++) {
		struct datapath_counts c = { 0 };
		char name[NET_NAME_MAX];

		key_format(&dp->pods[i], name);
		counts_read(dp, &dp->pods[i], &c);
		jw_obj(w);
		jw_kstr(w, "pod", name);
		describe_flow(w, "to_pod", &c.to_pod);
		describe_flow(w, "from_pod", &c.from_pod);
		jw_end_obj(w);
	}
	jw_end_arr(w);
	jw_end_obj(w);
}
