/* SPDX-License-Identifier: Apache-2.0
 * The splice in Prometheus' text format. Every label is there from the start, also where nothing is spliced.
 */
#include <bpf/bpf.h>
#include <inttypes.h>
#include <stdlib.h>

#include "datapath/splice_int.h"

#define PREFIX "kvsteer_"

static const char *const rows[KVS_ROWS_N] = {
#define X(NAME, name, goes) #name,
	KVS_ROWS(X)
#undef X
};

static const char *const arms[KVS_ARM_N + 1] = {
#define X(NAME, name) #name,
	KVS_ARM_RESULTS(X)
#undef X
		[KVS_ARM_N] = "unacked", /* the pod's host has not acknowledged the request */
};

static const char *const events[CARRIER_EVENTS_N] = {
#define X(NAME, name) #name,
	CARRIER_EVENTS(X)
#undef X
};

static const char *const services[SERVICE_COUNTS_N] = {
#define X(NAME, name) #name,
	SERVICE_COUNTS(X)
#undef X
};

static const char *const states[KVS_STATES_N] = {
#define X(NAME, name) [KVS_##NAME] = #name,
	KVS_STATES(X)
#undef X
};

static void family(struct buf *b, const char *name, const char *type, const char *help)
{
	buf_printf(b, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s %s\n", name, help, name, type);
}

/* The sum over the workers of counter <i> of the array that lies <at> bytes into each. */
static uint64_t sum(const struct datapath *dp, size_t at, unsigned i)
{
	uint64_t n = 0;

	for (const struct carrier_worker *w = dp->workers; w; w = w->next) {
		const _Atomic uint64_t *v = (const void *)((const char *)w + at);

		n += atomic_load_explicit(&v[i], memory_order_relaxed);
	}
	return n;
}

static void labelled(struct buf *b, const char *name, const char *label, const char *value, uint64_t n)
{
	buf_printf(b, PREFIX "%s{%s=\"%s\"} %" PRIu64 "\n", name, label, value, n);
}

static void write_workers(struct datapath *dp, struct buf *b)
{
	family(b, "splice_connections_total", "counter", "Connections by whether they may be spliced");
	for (unsigned side = 0; side < 2; side++)
		for (unsigned i = 0; i < CARRIER_WHYS_N; i++)
			buf_printf(b, PREFIX "splice_connections_total{side=\"%s\",result=\"%s\"} %" PRIu64 "\n",
				   side == KVS_SIDE_C ? "client" : "pod", carrier_why_name((enum carrier_why)i),
				   sum(dp, offsetof(struct carrier_worker, conns), side * CARRIER_WHYS_N + i));
	family(b, "splice_pairs_total", "counter",
	       "Answers that go on behind their first bytes, by whether they may be spliced, and why not");
	for (unsigned i = 0; i < CARRIER_WHYS_N; i++)
		labelled(b, "splice_pairs_total", "result", carrier_why_name((enum carrier_why)i),
			 sum(dp, offsetof(struct carrier_worker, pairs), i));
	family(b, "splice_arms_total", "counter", "Attempts to arm a splice");
	for (unsigned i = 0; i <= KVS_ARM_N; i++)
		labelled(b, "splice_arms_total", "result", arms[i], sum(dp, offsetof(struct carrier_worker, arms), i));
	family(b, "splice_arm_seconds_total", "counter", "Time that the workers spent on these attempts");
	buf_printf(b, PREFIX "splice_arm_seconds_total %.9f\n",
		   (double)sum(dp, offsetof(struct carrier_worker, arm_ns), 0) / NS_PER_S);
	family(b, "splice_events_total", "counter", "What was told of splices under way");
	for (unsigned i = 0; i < CARRIER_EVENTS_N; i++)
		labelled(b, "splice_events_total", "event", events[i],
			 sum(dp, offsetof(struct carrier_worker, events), i));
	family(b, "splice_bytes_total", "counter",
	       "Body bytes that never were in user space, of splices that are over");
	buf_printf(b, PREFIX "splice_bytes_total %" PRIu64 "\n", sum(dp, offsetof(struct carrier_worker, bytes), 0));
	family(b, "splice_segments_total", "counter", "Their segments");
	buf_printf(b, PREFIX "splice_segments_total %" PRIu64 "\n",
		   sum(dp, offsetof(struct carrier_worker, segments), 0));
	family(b, "splice_chunks_total", "counter", "Their chunks");
	buf_printf(b, PREFIX "splice_chunks_total %" PRIu64 "\n", sum(dp, offsetof(struct carrier_worker, chunks), 0));
}

static void write_states(struct splicer *sp, struct buf *b)
{
	uint32_t n[KVS_STATES_N] = { 0 };
	struct kvs_splice s;

	for (uint32_t id = 1; sp && id < sp->nids; id++) {
		uint8_t state = atomic_load_explicit(&sp->state[id], memory_order_relaxed);

		if ((state == ID_BOUND || state == ID_LIMBO) && splice_read(sp, id, &s) == 0 && s.state < KVS_STATES_N)
			n[s.state]++;
	}
	family(b, "splices", "gauge", "Splices by state");
	for (unsigned i = KVS_RELAY; i < KVS_STATES_N; i++)
		labelled(b, "splices", "state", states[i], n[i]);
	family(b, "splice_orphans", "gauge", "Splices of a kvsteerd that has died");
	buf_printf(b, PREFIX "splice_orphans %u\n", sp ? atomic_load(&sp->orphans) : 0);
}

static void write_devices(struct datapath *dp, struct buf *b)
{
	char name[IF_NAMESIZE];

	family(b, "device_served", "gauge", "Do our programs run on the device");
	for (unsigned i = 0; i < dp->ndevices; i++)
		if (if_indextoname(dp->devices[i].ifindex, name))
			labelled(b, "device_served", "device", name, !dp->devices[i].err && dp->devices[i].served);
}

void datapath_metrics(struct datapath *dp, struct buf *b)
{
	struct splicer *sp = atomic_load(&dp->sp);
	uint64_t row[KVS_ROWS_N] = { 0 };
	uint32_t zero = 0;

	pthread_mutex_lock(&dp->workers_lock);
	write_workers(dp, b);
	pthread_mutex_unlock(&dp->workers_lock);
	write_states(sp, b);
	if (sp)
		map_sum(sp->map[MAP_rows], &zero, dp->cpu_values, row, KVS_ROWS_N);
	family(b, "splice_rows_total", "counter",
	       "Packets by the rule that applied, since the programs were first loaded");
	for (unsigned i = 0; i < KVS_ROWS_N; i++)
		labelled(b, "splice_rows_total", "row", rows[i], row[i]);
	family(b, "splice_housekeeping_total", "counter",
	       "What the watchdog and the collection of leftovers have done");
	for (unsigned i = 0; i < SERVICE_COUNTS_N; i++)
		labelled(b, "splice_housekeeping_total", "what", services[i],
			 sp ? atomic_load_explicit(&sp->counts[i], memory_order_relaxed) : 0);
	write_devices(dp, b);
}
