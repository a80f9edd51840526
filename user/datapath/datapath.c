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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "datapath/datapath_int.h"

#define DEVICE_WORDS (sizeof(struct kvs_device_counts) / 8)
#define POD_WORDS    (sizeof(struct kvs_pod_counts) / 8)

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

struct datapath *datapath_open(const struct datapath_opts *o, char why[DATAPATH_WHY_MAX])
{
	struct datapath *dp = calloc(1, sizeof(*dp));
	int cpus, r;

	if (!dp)
		return NULL;
	dp->progs.fd[0] = dp->progs.fd[1] = dp->pods_fd = dp->devices_fd = -1;
	dp->attach = o->attach;
	if (o->mode && strcmp(o->mode, "off") == 0) {
		why_set(dp->why, 0, "datapath.mode is off");
		goto out;
	}
	cpus = libbpf_num_possible_cpus();
	dp->cpu_values = calloc(cpus > 0 ? (size_t)cpus : 1, sizeof(struct kvs_device_counts));
	if (!dp->cpu_values || names_parse(dp, o->devices))
		goto oom;
	r = kernel_load(dp);
	if (!r)
		r = attached_devices(PIN_DIR, &dp->progs, NULL, &dp->devices, &dp->ndevices);
	if (!r)
		dp->kernel = true;
	else if (!dp->why[0])
		why_set(dp->why, r, "cannot read what is attached: %s", strerror(-r));
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
	if (unpin && dp->kernel) {
		for (unsigned i = 0; i < dp->ndevices; i++)
			detach_device(PIN_DIR, &dp->progs, dp->devices[i].ifindex);
		pins_remove(PIN_DIR);
	}
	programs_close(&dp->progs);
	if (dp->pods_fd >= 0)
		close(dp->pods_fd);
	if (dp->devices_fd >= 0)
		close(dp->devices_fd);
	free(dp->cpu_values);
	free(dp->names);
	free(dp->devices);
	free(dp->pods);
	free(dp);
}

bool datapath_kernel(const struct datapath *dp)
{
	return dp->kernel;
}

const char *datapath_why(const struct datapath *dp)
{
	return dp->why;
}

/* Both sides sorted: take out of the map what is not wanted, put in what is missing. */
static int pods_reconcile(struct datapath *dp)
{
	struct kvs_pod_key key, next, *stale = calloc(KVS_MAX_PODS, sizeof(*stale));
	unsigned nstale = 0;
	int r = 0, more;

	if (!stale)
		return -ENOMEM;
	/* Walking and deleting at once would begin the walk anew: collect first. */
	for (more = bpf_map_get_next_key(dp->pods_fd, NULL, &next); !more && nstale < KVS_MAX_PODS;
	     more = bpf_map_get_next_key(dp->pods_fd, &key, &next)) {
		key = next;
		if (!dp->npods || !bsearch(&key, dp->pods, dp->npods, sizeof(key), key_cmp))
			stale[nstale++] = key;
	}
	for (unsigned i = 0; i < nstale; i++)
		bpf_map_delete_elem(dp->pods_fd, &stale[i]);
	free(stale);
	memset(dp->cpu_values, 0, (size_t)libbpf_num_possible_cpus() * sizeof(struct kvs_pod_counts));
	for (unsigned i = 0; i < dp->npods && !r; i++)
		if (bpf_map_update_elem(dp->pods_fd, &dp->pods[i], dp->cpu_values, BPF_NOEXIST) < 0 && errno != EEXIST)
			r = why_set(dp->why, -errno, "cannot add pod %u of %u to kvs_pods (room for %u): %s", i + 1,
				    dp->npods, KVS_MAX_PODS, strerror(errno));
	return r;
}

static int device_indices(struct datapath *dp, uint32_t **ret, unsigned *ret_n)
{
	unsigned n = 0;
	uint32_t *v;

	if (dp->auto_devices)
		return route_devices(dp->pods, dp->npods, ret, ret_n);
	v = calloc(dp->nnames + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (unsigned i = 0; i < dp->nnames; i++) {
		v[n] = if_nametoindex(dp->names[i]);
		if (v[n])
			n++;
		else
			why_set(dp->why, 0, "datapath.devices: no device %s here", dp->names[i]);
	}
	*ret = v;
	*ret_n = n;
	return 0;
}

static int device_serve(struct datapath *dp, struct device *d)
{
	char name[IF_NAMESIZE] = "";

	memset(dp->cpu_values, 0, (size_t)libbpf_num_possible_cpus() * sizeof(struct kvs_device_counts));
	if (bpf_map_update_elem(dp->devices_fd, &d->ifindex, dp->cpu_values, BPF_NOEXIST) < 0 && errno != EEXIST)
		d->err = -errno;
	else
		d->err = attach_device(&dp->progs, NULL, d->ifindex, dp->attach, &d->how);
	if (d->err)
		why_set(dp->why, d->err, "cannot attach to device %s: %s",
			if_indextoname(d->ifindex, name) ? name : "that has gone", strerror(-d->err));
	return d->err;
}

static int devices_reconcile(struct datapath *dp)
{
	struct device *devs;
	uint32_t *want;
	unsigned n;
	int r;

	r = device_indices(dp, &want, &n);
	if (r)
		return r;
	devs = calloc(n ? n : 1, sizeof(*devs));
	if (!devs) {
		free(want);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < dp->ndevices; i++) {
		uint32_t had = dp->devices[i].ifindex;
		bool keep = false;

		for (unsigned j = 0; j < n; j++)
			keep |= want[j] == had;
		if (!keep) {
			detach_device(PIN_DIR, &dp->progs, had);
			bpf_map_delete_elem(dp->devices_fd, &had);
		}
	}
	for (unsigned i = 0; i < n; i++) {
		int e;

		devs[i].ifindex = want[i];
		e = device_serve(dp, &devs[i]);
		r = r ? r : e;
	}
	free(want);
	free(dp->devices);
	dp->devices = devs;
	dp->ndevices = n;
	return r;
}

int datapath_refresh(struct datapath *dp)
{
	int r, e;

	if (!dp->kernel)
		return 0;
	dp->why[0] = '\0';
	pins_listen();
	r = pods_reconcile(dp);
	e = devices_reconcile(dp);
	return r ? r : e;
}

int datapath_set_pods(struct datapath *dp, const struct datapath_pod *pods, unsigned n)
{
	struct kvs_pod_key *v;
	unsigned unique = 0;

	if (!dp->kernel)
		return 0;
	v = calloc(n ? n : 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++)
		key_from_addr(&v[i], &pods[i].addr);
	if (n)
		qsort(v, n, sizeof(*v), key_cmp);
	for (unsigned i = 0; i < n; i++)
		if (!i || key_cmp(&v[i], &v[unique - 1]) != 0)
			v[unique++] = v[i];
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

static void describe_flow(struct jw *w, const char *key, const struct datapath_flow *f)
{
	jw_key(w, key);
	jw_obj(w);
	jw_ku64(w, "bytes", f->bytes);
	jw_ku64(w, "packets", f->packets);
	jw_ku64(w, "connections", f->connections);
	jw_end_obj(w);
}

static void describe_device(struct datapath *dp, struct jw *w, const struct device *d)
{
	static const char *const labels[] = {
#define X(NAME, name) #name,
		KVS_VERDICTS(X)
#undef X
	};
	uint64_t sum[DEVICE_WORDS] = { 0 };
	char name[IF_NAMESIZE];

	map_sum(dp->devices_fd, &d->ifindex, dp->cpu_values, sum, DEVICE_WORDS);
	jw_obj(w);
	jw_kstr(w, "name", if_indextoname(d->ifindex, name));
	jw_ku64(w, "ifindex", d->ifindex);
	jw_kstr(w, "attach", attach_name(d->how));
	jw_kstr(w, "error", d->err ? strerror(-d->err) : NULL);
	for (enum hook h = 0; h < HOOKS; h++) {
		jw_key(w, hook_name(h));
		jw_obj(w);
		for (unsigned v = 0; v < KVS_VERDICTS_N; v++)
			jw_ku64(w, labels[v], sum[h * KVS_VERDICTS_N + v]);
		jw_end_obj(w);
	}
	jw_end_obj(w);
}

void datapath_describe(struct datapath *dp, struct jw *w)
{
	jw_obj(w);
	jw_kstr(w, "carrier", "relay");
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
