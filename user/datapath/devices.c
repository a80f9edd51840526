/* SPDX-License-Identifier: Apache-2.0
 *
 * Which devices carry our programs, and whether the programs run there.
 *
 * A device is wanted if a route to a pod leaves by it; where splices are possible, also if it has an address that
 * clients dial, if a default route leaves by it, or if a client has come by it without TC having seen the handshake (a
 * stranger). Clients' devices stay wanted until they
 * go: that nobody comes for a while says nothing. A device that is wanted no more is let go when no connection of the
 * maps leaves by it.
 *
 * Attached is not executed: another owner's program may end the chain before ours. So the device's own packet counts
 * are compared with what our programs counted. A device by which IDLE_PACKETS went while our count stood still is not
 * served, until the count moves again.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdlib.h>
#include <string.h>

#include "datapath/splice_int.h"

#define IDLE_PACKETS 64

bool device_watch(struct device *d, enum hook h, uint64_t packets, uint64_t seen)
{
	if (!d->watched[h] || seen != d->seen[h] || packets < d->packets[h]) {
		d->watched[h] = true;
		d->seen[h] = seen;
		d->packets[h] = packets;
		return true;
	}
	return packets - d->packets[h] < IDLE_PACKETS;
}

static int configured_devices(struct datapath *dp, uint32_t **ret, unsigned *ret_n)
{
	unsigned n = 0;
	uint32_t *v = calloc(dp->nnames + 1, sizeof(*v));

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

static struct device *device_find(struct datapath *dp, uint32_t ifindex)
{
	for (unsigned i = 0; i < dp->ndevices; i++)
		if (dp->devices[i].ifindex == ifindex)
			return &dp->devices[i];
	return NULL;
}

static int device_want(struct datapath *dp, uint32_t ifindex, bool client)
{
	struct device *d = device_find(dp, ifindex), *v;

	if (!d) {
		v = realloc(dp->devices, (dp->ndevices + 1) * sizeof(*v));
		if (!v)
			return -ENOMEM;
		dp->devices = v;
		d = &v[dp->ndevices++];
		*d = (struct device){ .ifindex = ifindex };
	}
	d->wanted = true;
	d->client |= client;
	return 0;
}

static bool is_dialled(const struct datapath *dp, const struct sockaddr *sa)
{
	static const struct kvs_addr any;
	struct net_addr a = { .len = sa->sa_family == AF_INET ? sizeof(a.v4) : sizeof(a.v6) };
	struct kvs_pod_key k;

	memcpy(&a.sa, sa, a.len);
	key_from_addr(&k, &a);
	for (unsigned i = 0; i < dp->nlisteners; i++)
		if (memcmp(&dp->listeners[i].addr, &any, sizeof(any)) == 0 ||
		    memcmp(&dp->listeners[i].addr, &k.addr, sizeof(any)) == 0)
			return true;
	return false;
}

/* Devices that have an address which clients dial. */
static int listener_devices(struct datapath *dp)
{
	struct ifaddrs *all;
	int r = 0;

	if (getifaddrs(&all))
		return -errno;
	for (const struct ifaddrs *a = all; a && !r; a = a->ifa_next) {
		unsigned ifindex = if_nametoindex(a->ifa_name);

		if (a->ifa_addr && (a->ifa_addr->sa_family == AF_INET || a->ifa_addr->sa_family == AF_INET6) &&
		    (a->ifa_flags & IFF_UP) && !(a->ifa_flags & IFF_LOOPBACK) && ifindex && is_dialled(dp, a->ifa_addr))
			r = device_want(dp, ifindex, true);
	}
	freeifaddrs(all);
	return r;
}

static int want_routes(struct datapath *dp)
{
	/* Addresses of nobody, for documentation: what leads to them is a default route. */
	struct kvs_pod_key clients[STRANGERS + 2] = {
		{ .addr.b = { [10] = 0xff, 0xff, 203, 0, 113, 1 } },
		{ .addr.b = { 0x20, 0x01, 0x0d, 0xb8, [15] = 1 } },
	};
	struct splicer *sp = atomic_load(&dp->sp);
	unsigned n = 0, nclients = 2;
	uint32_t *v;
	int r;

	if (sp)
		nclients += strangers_take(sp, clients + 2);
	r = dp->auto_devices ? route_devices(dp->pods, dp->npods, &v, &n) : configured_devices(dp, &v, &n);
	if (r)
		return r;
	for (unsigned i = 0; i < n && !r; i++)
		r = device_want(dp, v[i], false);
	free(v);
	if (r || !sp || !dp->auto_devices)
		return r;
	r = route_devices(clients, nclients, &v, &n);
	if (r)
		return r;
	for (unsigned i = 0; i < n && !r; i++)
		r = device_want(dp, v[i], true);
	free(v);
	return r ? r : listener_devices(dp);
}

static void watch(struct datapath *dp, struct splicer *sp, struct device *d, const struct link_state *link)
{
	uint64_t sum[DEVICE_WORDS] = { 0 };
	enum carrier_why why;

	if (map_sum(dp->devices_fd, &d->ifindex, dp->cpu_values, sum, DEVICE_WORDS))
		return;
	d->served = true;
	for (enum hook h = 0; h < HOOKS; h++) {
		uint64_t seen = 0;

		for (unsigned i = 0; i < KVS_VERDICTS_N; i++)
			seen += sum[h * KVS_VERDICTS_N + i];
		d->served &= device_watch(d, h, link->packets[h], seen);
	}
	if (!sp)
		return;
	why = link->type == ARPHRD_LOOPBACK ? CARRIER_WHY_LOOPBACK
	      : link->type != ARPHRD_ETHER  ? CARRIER_WHY_NO_ETHERNET
	      : d->served		    ? CARRIER_WHY_OK
					    : CARRIER_WHY_NOT_SERVED;
	served_set(sp, d->ifindex, why);
}

static int device_serve(struct datapath *dp, struct device *d)
{
	struct splicer *sp = atomic_load(&dp->sp);
	struct link_state link = { 0 };
	char name[IF_NAMESIZE] = "";

	memset(dp->cpu_values, 0, (size_t)libbpf_num_possible_cpus() * sizeof(struct kvs_device_counts));
	if (bpf_map_update_elem(dp->devices_fd, &d->ifindex, dp->cpu_values, BPF_NOEXIST) < 0 && errno != EEXIST)
		d->err = -errno;
	else
		d->err = attach_device(&dp->progs, &dp->ours, d->ifindex, dp->attach, &d->how);
	if (d->err)
		why_set(dp->why, d->err, "cannot attach to device %s: %s",
			if_indextoname(d->ifindex, name) ? name : "that has gone", strerror(-d->err));
	if (!d->err && link_read(d->ifindex, &link) == 0)
		watch(dp, sp, d, &link);
	else if (sp)
		served_drop(sp, d->ifindex);
	return d->err;
}

static bool device_let_go(struct datapath *dp, const struct device *d)
{
	struct splicer *sp = atomic_load(&dp->sp);
	char name[IF_NAMESIZE];

	if (!if_indextoname(d->ifindex, name))
		return true;
	return !d->wanted && !dp->shared && !(sp && ((d->client && dp->auto_devices) || device_used(sp, d->ifindex)));
}

int devices_reconcile(struct datapath *dp)
{
	struct splicer *sp = atomic_load(&dp->sp);
	unsigned kept = 0;
	int r, e;

	for (unsigned i = 0; i < dp->ndevices; i++)
		dp->devices[i].wanted = false;
	r = want_routes(dp);
	if (r)
		return r;
	for (unsigned i = 0; i < dp->ndevices; i++) {
		struct device *d = &dp->devices[i];

		if (!device_let_go(dp, d)) {
			dp->devices[kept++] = *d;
			continue;
		}
		if (sp)
			served_drop(sp, d->ifindex);
		detach_device(PIN_DIR, &dp->ours, d->ifindex);
		bpf_map_delete_elem(dp->devices_fd, &d->ifindex);
	}
	dp->ndevices = kept;
	for (unsigned i = 0; i < dp->ndevices; i++) {
		e = device_serve(dp, &dp->devices[i]);
		r = r ? r : e;
	}
	return r;
}

int devices_adopt(struct datapath *dp)
{
	int r = attached_devices(PIN_DIR, &dp->ours, &dp->devices, &dp->ndevices);

	/* Why a former daemon attached to each is not known: clients may have come by it. */
	for (unsigned i = 0; !r && i < dp->ndevices; i++)
		dp->devices[i].client = true;
	return r;
}

void describe_device(struct datapath *dp, struct jw *w, const struct device *d)
{
	static const char *const labels[] = {
#define X(NAME, name) #name,
		KVS_VERDICTS(X)
#undef X
	};
	struct splicer *sp = atomic_load(&dp->sp);
	uint64_t sum[DEVICE_WORDS] = { 0 };
	char name[IF_NAMESIZE];

	map_sum(dp->devices_fd, &d->ifindex, dp->cpu_values, sum, DEVICE_WORDS);
	jw_obj(w);
	jw_kstr(w, "name", if_indextoname(d->ifindex, name));
	jw_ku64(w, "ifindex", d->ifindex);
	jw_kstr(w, "attach", attach_name(d->how));
	jw_kstr(w, "error", d->err ? strerror(-d->err) : NULL);
	jw_kbool(w, "served", !d->err && d->served);
	jw_kstr(w, "splice", sp ? carrier_why_name(served_why(sp, d->ifindex)) : "off");
	for (enum hook h = 0; h < HOOKS; h++) {
		jw_key(w, hook_name(h));
		jw_obj(w);
		for (unsigned v = 0; v < KVS_VERDICTS_N; v++)
			jw_ku64(w, labels[v], sum[h * KVS_VERDICTS_N + v]);
		jw_end_obj(w);
	}
	jw_end_obj(w);
}
