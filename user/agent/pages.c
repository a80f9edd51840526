/* SPDX-License-Identifier: Apache-2.0
 * What the admin address shows: /metrics, /healthz, /readyz.
 */
#include <inttypes.h>
#include <math.h>
#include <stddef.h>

#include "agent/agent.h"
#include "base/time.h"

#define TEXT "text/plain; version=0.0.4; charset=utf-8"

static void gauge(struct buf *b, const char *name, const char *help, double v)
{
	buf_printf(b, "# HELP kvsteer_%s %s\n# TYPE kvsteer_%s gauge\nkvsteer_%s %.17g\n", name, help, name, name, v);
}

/* One family over all pods. <get> returns NAN for what is not known: no line. */
static void per_pod(struct agent *a, struct buf *b, const char *name, const char *type, const char *help,
		    double (*get)(struct agent *a, struct pod *p))
{
	buf_printf(b, "# HELP kvsteer_%s %s\n# TYPE kvsteer_%s %s\n", name, help, name, type);
	list_for_each (it, endpoints_pods(a->endpoints)) {
		struct pod *p = container_of(it, struct pod, link);
		double v = get(a, p);

		if (isfinite(v))
			buf_printf(b, "kvsteer_%s{pod=\"%s\",pool=\"%s\"} %.17g\n", name, p->name,
				   a->cfg->pools[p->pool].name, v);
	}
}

static double pod_up(struct agent *a, struct pod *p)
{
	return pod_usable(p, time_mono());
}

static double pod_inflight(struct agent *a, struct pod *p)
{
	struct ledger_view v;

	ledger_read(p, time_mono(), &v);
	return v.n;
}

static double pod_waiting(struct agent *a, struct pod *p)
{
	struct ledger_view v;

	ledger_read(p, time_mono(), &v);
	return v.waiting;
}

static double pod_backlog(struct agent *a, struct pod *p)
{
	struct ledger_view v;

	ledger_read(p, time_mono(), &v);
	return v.backlog;
}

static double pod_kv_usage(struct agent *a, struct pod *p)
{
	return p->sample.at_ns ? p->sample.kv_usage : NAN;
}

static double pod_predicted(struct agent *a, struct pod *p)
{
	return (double)atomic_load(&p->predicted_tokens);
}

static double pod_reported(struct agent *a, struct pod *p)
{
	return (double)atomic_load(&p->reported_tokens);
}

static double pod_ejections(struct agent *a, struct pod *p)
{
	return (double)atomic_load(&p->ejections);
}

static double pod_index_live(struct agent *a, struct pod *p)
{
	return atomic_load(&p->index_live);
}

static double pod_blocks(struct agent *a, struct pod *p)
{
	uint64_t blocks, all = 0, guessed;

	for (unsigned i = 0; i < p->spec.ranks && p->holder[i] < INDEX_HOLDERS; i++) {
		index_holder_stats(a->index, p->holder[i], &blocks, &guessed);
		all += blocks;
	}
	return (double)all;
}

struct drift_page {
	struct agent *a;
	struct pod *p;
	struct buf *b;
	enum { DRIFT_OFF, DRIFT_CAUSE } what;
};

static void put_model(struct buf *b, const char *name)
{
	for (; *name; name++)
		buf_printf(b, *name == '"' || *name == '\\' ? "\\%c" : "%c", *name == '\n' ? ' ' : *name);
}

static void drift_line(void *arg, const struct truth_row *row, enum truth_kind kind, const struct truth_view *v)
{
	struct drift_page *d = arg;

	if (d->what == DRIFT_CAUSE ? !v->doubted : !v->n)
		return;
	buf_printf(d->b, "kvsteer_%s{pod=\"%s\",pool=\"%s\",model=\"",
		   d->what == DRIFT_CAUSE ? "prediction_doubted" : "prediction_off_ratio", d->p->name,
		   d->a->cfg->pools[d->p->pool].name);
	put_model(d->b, row->name);
	buf_printf(d->b, "\",of=\"%s\"", truth_kind_name(kind));
	if (d->what == DRIFT_CAUSE)
		buf_printf(d->b, ",cause=\"%s\"} 1\n", truth_cause_name(v->cause));
	else
		buf_printf(d->b, "} %.6g\n", (double)v->off / (double)v->n);
}

static void drift_pages(struct agent *a, struct buf *b)
{
	buf_puts(b, "# HELP kvsteer_prediction_off_ratio Of the last answers with cached tokens, the share that was "
		    "not as predicted\n# TYPE kvsteer_prediction_off_ratio gauge\n");
	list_for_each (it, endpoints_pods(a->endpoints)) {
		struct pod *p = container_of(it, struct pod, link);

		meter_each(a, p, drift_line, &(struct drift_page){ a, p, b, DRIFT_OFF });
	}
	buf_puts(b, "# HELP kvsteer_prediction_doubted Are the pod's predictions doubted, by the likely cause\n"
		    "# TYPE kvsteer_prediction_doubted gauge\n");
	list_for_each (it, endpoints_pods(a->endpoints)) {
		struct pod *p = container_of(it, struct pod, link);

		meter_each(a, p, drift_line, &(struct drift_page){ a, p, b, DRIFT_CAUSE });
	}
}

/* The kernel's histograms of splices, a pod's each. Every second bucket from 64 µs to 67 s: the scheduler reads all. */
static void pod_times(struct agent *a, struct buf *b, const char *name, const char *help, size_t at)
{
	buf_printf(b, "# HELP kvsteer_%s %s\n# TYPE kvsteer_%s histogram\n", name, help, name);
	list_for_each (it, endpoints_pods(a->endpoints)) {
		struct pod *p = container_of(it, struct pod, link);
		const char *pool = a->cfg->pools[p->pool].name;
		struct kvs_pod_times times;
		const struct kvs_times *t = (const void *)((const char *)&times + at);
		uint64_t upto = 0;

		if (datapath_times(a->datapath, &p->spec.addr, &times))
			continue;
		for (unsigned i = 0; i < KVS_TIME_BUCKETS; i++) {
			upto += t->count[i];
			if (i >= 6 && i <= 26 && i % 2 == 0)
				buf_printf(b, "kvsteer_%s_bucket{pod=\"%s\",pool=\"%s\",le=\"%.9g\"} %" PRIu64 "\n",
					   name, p->name, pool, (double)(UINT64_C(1) << i) * 1e-6, upto);
		}
		buf_printf(b,
			   "kvsteer_%s_bucket{pod=\"%s\",pool=\"%s\",le=\"+Inf\"} %" PRIu64
			   "\nkvsteer_%s_sum{pod=\"%s\",pool=\"%s\"} %.9f\n"
			   "kvsteer_%s_count{pod=\"%s\",pool=\"%s\"} %" PRIu64 "\n",
			   name, p->name, pool, upto, name, p->name, pool, (double)t->sum_ns * 1e-9, name, p->name,
			   pool, upto);
	}
}

static int metrics_page(void *arg, struct str path, struct buf *b, const char **ret_type)
{
	struct agent *a = arg;
	struct index_stats x;

	*ret_type = TEXT;
	stats_write(a->stats, a->nshards, b);
	stats_hist_write(a->shared.ttft, a->workers, sizeof(*a->shared.ttft), "ttft_seconds",
			 "Request's head read to the answer's first body byte", b);
	stats_hist_write(a->shared.duration, a->workers, sizeof(*a->shared.duration), "request_seconds",
			 "Request's head read to its end", b);
	stats_hist_write(a->shared.decision, a->workers, sizeof(*a->shared.decision), "decision_seconds",
			 "Reading the body, hashing, look-up and pick", b);
	index_stats(a->index, &x);
	gauge(b, "index_nodes", "Blocks of text in the prefix index", (double)x.nodes);
	gauge(b, "index_bytes", "Memory of the prefix index", (double)x.bytes);
	gauge(b, "index_max_bytes", "Its ceiling", (double)x.max_bytes);
	gauge(b, "streams", "Requests under way", atomic_load(&a->shared.streams));
	gauge(b, "connections", "Client connections open", atomic_load(&a->shared.connections));
	gauge(b, "buffered_bytes", "Bytes of request bodies held", (double)atomic_load(&a->shared.memory));
	per_pod(a, b, "pod_up", "gauge", "May the pod take new requests", pod_up);
	per_pod(a, b, "pod_inflight", "gauge", "Requests sent to the pod and not finished", pod_inflight);
	per_pod(a, b, "pod_waiting", "gauge", "Of these, without a first token", pod_waiting);
	per_pod(a, b, "pod_backlog_seconds", "gauge", "Predicted prefill work sent and not done", pod_backlog);
	per_pod(a, b, "pod_kv_usage", "gauge", "The engine's own KV cache usage, 0 to 1", pod_kv_usage);
	per_pod(a, b, "pod_index_live", "gauge", "Do the pod's KV events flow without a gap", pod_index_live);
	per_pod(a, b, "pod_index_blocks", "gauge", "Blocks that its events announced", pod_blocks);
	per_pod(a, b, "pod_ejections_total", "counter", "Times the pod was ejected", pod_ejections);
	per_pod(a, b, "prefix_predicted_tokens_total", "counter", "Cached tokens predicted", pod_predicted);
	per_pod(a, b, "prefix_reported_tokens_total", "counter", "Cached tokens that engines reported", pod_reported);
	drift_pages(a, b);
	pod_times(a, b, "pod_splice_ttft_seconds", "Dispatch to the body's first byte, of spliced answers",
		  offsetof(struct kvs_pod_times, ttft));
	pod_times(a, b, "pod_splice_gap_seconds", "Between segments with new bytes, of spliced answers",
		  offsetof(struct kvs_pod_times, gap));
	datapath_metrics(a->datapath, b);
	return 200;
}

static int health_page(void *arg, struct str path, struct buf *b, const char **ret_type)
{
	*ret_type = "text/plain";
	buf_puts(b, "ok\n");
	return 200;
}

static int ready_page(void *arg, struct str path, struct buf *b, const char **ret_type)
{
	struct agent *a = arg;
	bool up = false;

	list_for_each (it, endpoints_pods(a->endpoints)) {
		up |= pod_usable(container_of(it, struct pod, link), time_mono());
	}
	*ret_type = "text/plain";
	if (a->ready && up) {
		buf_puts(b, "ready\n");
		return 200;
	}
	buf_puts(b, a->draining ? "draining\n" : a->ready ? "no pod is up\n" : "starting\n");
	return 503;
}

const struct admin_page agent_pages[] = {
	{ "/metrics", metrics_page },
	{ "/healthz", health_page },
	{ "/readyz", ready_page },
};
const unsigned agent_npages = sizeof(agent_pages) / sizeof(agent_pages[0]);
