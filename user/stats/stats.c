/* SPDX-License-Identifier: Apache-2.0
 * Counters and histograms in Prometheus' text format.
 *
 * A family (one name) has one HELP and one TYPE line, before its first row; the list keeps a family's rows together, as
 * the format demands, and the first of them carries the help.
 */
#include "stats/stats.h"

#include <inttypes.h>
#include <string.h>

#define PREFIX "kvsteer_"

static const struct {
	const char *name, *label, *help;
} counters[STATS_N] = {
#define X(id, name, label, help) [STATS_##id] = { name, label, help },
	STATS_COUNTERS(X)
#undef X
};

uint64_t stats_sum(const struct stats *shards, unsigned n, enum stats_id id)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += atomic_load_explicit(&shards[i].v[id], memory_order_relaxed);
	return sum;
}

const char *stats_name(enum stats_id id, const char **ret_label)
{
	if (ret_label)
		*ret_label = counters[id].label;
	return counters[id].name;
}

int stats_write(const struct stats *shards, unsigned n, struct buf *out)
{
	const char *family = "";
	int r = 0;

	for (unsigned i = 0; i < STATS_N && r == 0; i++) {
		const char *name = counters[i].name, *label = counters[i].label;

		if (strcmp(name, family) != 0) {
			family = name;
			r = buf_printf(out, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s counter\n", name,
				       counters[i].help, name);
			if (r < 0)
				break;
		}
		r = buf_printf(out, PREFIX "%s%s%s%s %" PRIu64 "\n", name, *label ? "{" : "", label, *label ? "}" : "",
			       stats_sum(shards, n, i));
	}
	return r;
}

static void bump(_Atomic uint64_t *c, uint64_t n)
{
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

void stats_hist_add(struct stats_hist *h, uint64_t ns)
{
	unsigned bits = ns ? 64 - (unsigned)__builtin_clzll(ns) : 0; /* ns < 2^bits */
	unsigned i = bits > 10 ? bits - 10 : 0;

	if (i < STATS_BUCKETS)
		bump(&h->bucket[i], 1);
	bump(&h->sum_ns, ns);
	bump(&h->count, 1);
}

int stats_hist_write(const struct stats_hist *first, unsigned n, size_t stride, const char *name, const char *help,
		     struct buf *out)
{
	uint64_t bucket[STATS_BUCKETS] = { 0 }, sum = 0, count = 0, upto = 0;
	int r;

	for (unsigned i = 0; i < n; i++) {
		const struct stats_hist *h = (const void *)((const char *)first + i * stride);

		for (unsigned k = 0; k < STATS_BUCKETS; k++)
			bucket[k] += atomic_load_explicit(&h->bucket[k], memory_order_relaxed);
		sum += atomic_load_explicit(&h->sum_ns, memory_order_relaxed);
		count += atomic_load_explicit(&h->count, memory_order_relaxed);
	}
	r = buf_printf(out, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s histogram\n", name, help, name);
	for (unsigned k = 0; k < STATS_BUCKETS && r == 0; k++) {
		upto += bucket[k];
		r = buf_printf(out, PREFIX "%s_bucket{le=\"%.12g\"} %" PRIu64 "\n", name,
			       (double)(UINT64_C(1) << (k + 10)) * 1e-9, upto);
	}
	/* A writer may be between its bucket and its count; +Inf is never below a bucket. */
	if (count < upto)
		count = upto;
	if (r == 0)
		r = buf_printf(out,
			       PREFIX "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n" PREFIX "%s_sum %.9f\n" PREFIX
				      "%s_count %" PRIu64 "\n",
			       name, count, name, (double)sum * 1e-9, name, count);
	return r;
}
